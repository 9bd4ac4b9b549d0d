/* What the machine that runs QEMU (or a debugger) does for the program: text, files, the exit code. */
#ifndef SCALPEL_SEMIHOSTING_H
#define SCALPEL_SEMIHOSTING_H

#include <stddef.h>

void semihosting_print(const char *text);

/* Reads a whole file of the host; gives back its size, or -1 where it cannot be read or is larger than `capacity`. */
long semihosting_read_file(const char *path, void *to, size_t capacity);

/* Gives back 0, or -1 where the file cannot be written. */
int semihosting_write_file(const char *path, const void *from, size_t size);

__attribute__((noreturn)) void semihosting_exit(int code);

#endif
