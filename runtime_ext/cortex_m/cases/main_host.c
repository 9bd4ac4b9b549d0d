/* Runs cases.bin in the current folder; writes outputs.bin as main_qemu.c does, with counts of 0. Each array lies in
 * memory of its own, so that a sanitizer sees every step outside. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel_cases.h"

static int fail(const char *text) {
  fprintf(stderr, "%s\n", text);
  return 1;
}

static void *copy(const void *from, size_t size) {
  void *memory = malloc(size == 0 ? 1 : size);
  if (memory != NULL) memcpy(memory, from, size);
  return memory;
}

static int run(kernel_case which, FILE *out) {
  void *copies[KERNEL_CASE_ARRAYS] = {NULL};
  for (uint32_t i = 0; i < which.n_arrays; ++i) {
    copies[i] = copy(which.arrays[i], which.array_bytes[i]);
    which.arrays[i] = copies[i];
  }
  const uint64_t zeros = 0;
  uint8_t *y = calloc(1, which.output_bytes);
  kernel_call *call = find_kernel(&which);
  if (call != NULL) call(&which, y);
  const size_t rest = (8 - which.output_bytes % 8) % 8;
  const int written = fwrite(&zeros, 8, 1, out) == 1 && fwrite(y, 1, which.output_bytes, out) == which.output_bytes &&
                      fwrite(&zeros, 1, rest, out) == rest;
  free(y);
  for (uint32_t i = 0; i < which.n_arrays; ++i) free(copies[i]);
  if (call == NULL) return fail("no such kernel, or it takes something else");
  return written ? 0 : fail("outputs.bin cannot be written");
}

int main(void) {
  FILE *in = fopen("cases.bin", "rb");
  if (in == NULL || fseek(in, 0, SEEK_END) != 0) return fail("cases.bin cannot be read");
  const long size = ftell(in);
  rewind(in);
  void *file = malloc((size_t)size);
  if (file == NULL || fread(file, 1, (size_t)size, in) != (size_t)size) return fail("cases.bin cannot be read");
  fclose(in);
  FILE *out = fopen("outputs.bin", "wb");
  if (out == NULL) return fail("outputs.bin cannot be written");
  int result = 0;
  for (size_t at = 0; at < (size_t)size && result == 0;) {
    kernel_case which;
    result = next_kernel_case(file, (size_t)size, &at, &which) ? run(which, out) : fail("cases.bin is damaged");
  }
  free(file);
  return fclose(out) == 0 ? result : fail("outputs.bin cannot be written");
}
