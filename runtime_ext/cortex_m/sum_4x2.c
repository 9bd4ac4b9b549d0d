#include "sum_4x2.h"

#if SCALPEL_ASSEMBLER

#define NEXT_U8(TO) "ldrb " TO ", [r12], #1\n\t"
#define NEXT_U16(TO) "ldrh " TO ", [r12], #2\n\t"
#define INPUT(TO) "ldr " TO ", [r3, " TO ", lsl #2]\n\t"
#define FOUR_ROWS(X)               \
  "ldmia lr!, {r8, r9, r10, r11}\n\t" \
  "smlad r4, " X ", r8, r4\n\t"    \
  "smlad r5, " X ", r9, r5\n\t"    \
  "smlad r6, " X ", r10, r6\n\t"   \
  "smlad r7, " X ", r11, r7\n\t"
#define TWO_GROUPS(NEXT) NEXT("r0") NEXT("r2") INPUT("r0") INPUT("r2") FOUR_ROWS("r0") FOUR_ROWS("r2")

/* n mod 4 first: its lower bit goes to N, the other to C. */
#define BODY(NEXT)                                                     \
  __asm__ volatile("push {r0, r2, r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t" \
                   "ldmia r0, {r4, r5, r6, r7}\n\t"                    \
                   "ldrd lr, r12, [r2]\n\t"                            \
                   "lsls r0, r1, #31\n\t"                              \
                   "bpl 1f\n\t" NEXT("r0") INPUT("r0") FOUR_ROWS("r0") \
                   "1:\n\t"                                            \
                   "bcc 2f\n\t" TWO_GROUPS(NEXT)                       \
                   "2:\n\t"                                            \
                   "lsrs r1, r1, #2\n\t"                               \
                   "beq 4f\n\t"                                        \
                   "3:\n\t" TWO_GROUPS(NEXT) TWO_GROUPS(NEXT)          \
                   "subs r1, r1, #1\n\t"                               \
                   "bne 3b\n\t"                                        \
                   "4:\n\t"                                            \
                   "pop {r0, r2}\n\t"                                  \
                   "strd lr, r12, [r2]\n\t"                            \
                   "stmia r0, {r4, r5, r6, r7}\n\t"                    \
                   "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}")

__attribute__((naked)) void scalpel_sum_4x2_u8(__attribute__((unused)) int32_t *acc, __attribute__((unused)) uint32_t n,
                                               __attribute__((unused)) group_position *at,
                                               __attribute__((unused)) const int16_t *x) {
  BODY(NEXT_U8);
}

__attribute__((naked)) void scalpel_sum_4x2_u16(__attribute__((unused)) int32_t *acc,
                                                __attribute__((unused)) uint32_t n,
                                                __attribute__((unused)) group_position *at,
                                                __attribute__((unused)) const int16_t *x) {
  BODY(NEXT_U16);
}

#else

/* An empty translation unit is not C99. */
typedef group_position scalpel_unused;

#endif
