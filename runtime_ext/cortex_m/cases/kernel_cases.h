/* Kernel calls as data: a file of them runs on a board, in QEMU, on the host and under sanitizers, and the bytes
 * that come out are the same. A file is a sequence of cases, all numbers little-endian, every part filled up to 8
 * bytes:
 *     char name[40]        of the kernel, without "scalpel_", filled up with zeros
 *     uint32 n_numbers, n_arrays, output_bytes, 0
 *     int32 numbers[n_numbers]
 *     uint32 array_bytes[n_arrays]
 *     each array
 * cases/kernel_cases.c says which numbers and arrays a kernel takes.
 */
#ifndef SCALPEL_KERNEL_CASES_H
#define SCALPEL_KERNEL_CASES_H

#include <stddef.h>
#include <stdint.h>

enum { KERNEL_CASE_ARRAYS = 7 };

typedef struct {
  const char *name;
  const int32_t *numbers;
  uint32_t n_numbers;
  uint32_t n_arrays;
  const void *arrays[KERNEL_CASE_ARRAYS]; /* null beyond n_arrays, and where an array is empty */
  uint32_t array_bytes[KERNEL_CASE_ARRAYS];
  uint32_t output_bytes;
} kernel_case;

/* Decodes the case at `*at` of a file of `size` bytes, aligned to 8, and moves `*at` behind it. Gives back 1; 0 where
 * the file ends or is not such a file. */
int next_kernel_case(const void *file, size_t size, size_t *at, kernel_case *result);

/* Calls a kernel with what a case holds; y is aligned to 4 bytes and has output_bytes. */
typedef void kernel_call(const kernel_case *from, void *y);

/* Null where no kernel has this name, or it takes other numbers and arrays. */
kernel_call *find_kernel(const kernel_case *which);

#endif
