/* Instructions executed so far, modulo 2^32, in QEMU started with -icount shift=6,sleep=off: each takes 64 ns there,
 * and CMSDK timer 0 counts down at 25 MHz. Wraps after some 2.7 * 10^9 instructions. */
#ifndef SCALPEL_INSTRUCTIONS_H
#define SCALPEL_INSTRUCTIONS_H

#include <stdint.h>

void instructions_start(void);

/* Since instructions_start. */
uint32_t instructions(void);

#endif
