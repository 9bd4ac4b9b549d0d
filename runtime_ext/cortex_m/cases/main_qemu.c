/* Runs cases.bin in QEMU; writes outputs.bin: for each case its instructions (uint32, then 4 bytes of zeros) and its
 * output, filled up to 8 bytes. */
#include <string.h>

#include "../platform/mps2_an386/instructions.h"
#include "../platform/mps2_an386/semihosting.h"
#include "kernel_cases.h"

static uint64_t input[3u << 17];
static uint64_t output[100000];

static int fail(const char *text) {
  semihosting_print(text);
  return 1;
}

int main(void) {
  const long size = semihosting_read_file("cases.bin", input, sizeof input);
  if (size < 0) return fail("cases.bin cannot be read, or is too large\n");
  size_t at = 0;
  size_t used = 0;
  while (at < (size_t)size) {
    kernel_case which;
    if (!next_kernel_case(input, (size_t)size, &at, &which)) return fail("cases.bin is not a file of cases\n");
    const size_t words = 1 + (which.output_bytes + 7u) / 8u;
    if (words > sizeof output / sizeof *output - used) return fail("the outputs are too large\n");
    kernel_call *call = find_kernel(&which);
    if (call == NULL) return fail("no such kernel, or it takes something else\n");
    instructions_start();
    call(&which, output + used + 1);
    output[used] = instructions();
    used += words;
  }
  return semihosting_write_file("outputs.bin", output, used * sizeof *output) == 0 ? 0 : fail("outputs.bin?\n");
}
