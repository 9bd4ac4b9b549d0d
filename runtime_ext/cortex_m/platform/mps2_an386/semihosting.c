/* "Semihosting for AArch32 and AArch64", Arm; a call is BKPT 0xAB with its number in r0 and its arguments in r1. */
#include "semihosting.h"

#include <stdint.h>
#include <string.h>

enum { OPEN = 0x01, CLOSE = 0x02, WRITE0 = 0x04, WRITE = 0x05, READ = 0x06, FLEN = 0x0C, EXIT_EXTENDED = 0x20 };
enum { READ_BINARY = 1, WRITE_BINARY = 5, APPLICATION_EXIT = 0x20026 };

static long call(uint32_t number, const void *arguments) {
  register uint32_t r0 __asm__("r0") = number;
  register const void *r1 __asm__("r1") = arguments;
  __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
  return (long)r0;
}

static long open_file(const char *path, uint32_t mode) {
  const uint32_t arguments[3] = {(uint32_t)(uintptr_t)path, mode, (uint32_t)strlen(path)};
  return call(OPEN, arguments);
}

/* READ and WRITE give back how many bytes are left undone. */
static int transfer(uint32_t number, long file, const void *memory, size_t size) {
  const uint32_t arguments[3] = {(uint32_t)file, (uint32_t)(uintptr_t)memory, (uint32_t)size};
  return call(number, arguments) == 0 ? 0 : -1;
}

static int close_file(long file) {
  const uint32_t arguments[1] = {(uint32_t)file};
  return call(CLOSE, arguments) == 0 ? 0 : -1;
}

void semihosting_print(const char *text) { call(WRITE0, text); }

long semihosting_read_file(const char *path, void *to, size_t capacity) {
  const long file = open_file(path, READ_BINARY);
  if (file == -1) return -1;
  const uint32_t arguments[1] = {(uint32_t)file};
  const long size = call(FLEN, arguments);
  const int failed = size < 0 || (size_t)size > capacity || transfer(READ, file, to, (size_t)size) != 0;
  return close_file(file) != 0 || failed ? -1 : size;
}

int semihosting_write_file(const char *path, const void *from, size_t size) {
  const long file = open_file(path, WRITE_BINARY);
  if (file == -1) return -1;
  const int failed = transfer(WRITE, file, from, size) != 0;
  return close_file(file) != 0 || failed ? -1 : 0;
}

void semihosting_exit(int code) {
  const uint32_t arguments[2] = {APPLICATION_EXIT, (uint32_t)code};
  for (;;) call(EXIT_EXTENDED, arguments);
}
