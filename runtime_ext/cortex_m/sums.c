#include "sums.h"

#if SCALPEL_ASSEMBLER

/* Loads stand together, because the M4 overlaps them: n of them take n + 1 cycles. LDM takes as many and overlaps with
 * nothing, so it serves where registers allow no longer row of loads. */

#define UNUSED __attribute__((unused))
#define NAKED __attribute__((naked))

#define NEXT_U8(TO) "ldrb " TO ", [r12], #1\n\t"
#define NEXT_U16(TO) "ldrh " TO ", [r12], #2\n\t"
#define INPUT(TO) "ldr " TO ", [r3, " TO ", lsl #2]\n\t"
#define FOUR_ROWS(X)                  \
  "ldmia lr!, {r8, r9, r10, r11}\n\t" \
  "smlad r4, " X ", r8, r4\n\t"       \
  "smlad r5, " X ", r9, r5\n\t"       \
  "smlad r6, " X ", r10, r6\n\t"      \
  "smlad r7, " X ", r11, r7\n\t"
#define TWO_GROUPS_4x2(NEXT) NEXT("r0") NEXT("r2") INPUT("r0") INPUT("r2") FOUR_ROWS("r0") FOUR_ROWS("r2")

#define TWO_ROWS(X, W0, W1)         \
  "smlad r4, " X ", " W0 ", r4\n\t" \
  "smlad r5, " X ", " W1 ", r5\n\t"
#define TWO_GROUPS_2x2(NEXT)                      \
  NEXT("r0") NEXT("r2") INPUT("r0") INPUT("r2")   \
  "ldmia lr!, {r6, r7, r8, r9}\n\t" TWO_ROWS("r0", "r6", "r7") TWO_ROWS("r2", "r8", "r9")
#define ONE_GROUP_2x2(NEXT) NEXT("r0") INPUT("r0") "ldrd r6, r7, [lr], #8\n\t" TWO_ROWS("r0", "r6", "r7")
#define ONE_GROUP_4x2(NEXT) NEXT("r0") INPUT("r0") FOUR_ROWS("r0")

/* n mod 4 first: its lower bit goes to N, the other to C. ACC are the registers of the sums, in braces; the others in
 * SAVED, between r4 and lr, are weights. */
#define SUM_GROUPS(NEXT, ONE, TWO, ACC, SAVED)           \
  __asm__ volatile(                                      \
      "push {r0, r2, " SAVED ", lr}\n\t"                 \
      "ldmia r0, {" ACC "}\n\t"                          \
      "ldrd lr, r12, [r2]\n\t"                           \
      "lsls r0, r1, #31\n\t"                             \
      "bpl 1f\n\t" ONE(NEXT)                             \
      "1:\n\t"                                           \
      "bcc 2f\n\t" TWO(NEXT)                             \
      "2:\n\t"                                           \
      "lsrs r1, r1, #2\n\t"                              \
      "beq 4f\n\t"                                       \
      "3:\n\t" TWO(NEXT) TWO(NEXT)                       \
      "subs r1, r1, #1\n\t"                              \
      "bne 3b\n\t"                                       \
      "4:\n\t"                                           \
      "pop {r0, r2}\n\t"                                 \
      "strd lr, r12, [r2]\n\t"                           \
      "stmia r0, {" ACC "}\n\t"                          \
      "pop {" SAVED ", pc}")

#define DEFINE_SUM_GROUPS(SHAPE, NEXT, INDEX, ACC, SAVED)                                                        \
  NAKED void scalpel_sum_##SHAPE##_##INDEX(UNUSED int32_t *acc, UNUSED uint32_t n, UNUSED group_position *at,         \
                                           UNUSED const int16_t *x) {                                                 \
    SUM_GROUPS(NEXT, ONE_GROUP_##SHAPE, TWO_GROUPS_##SHAPE, ACC, SAVED);                                                            \
  }
DEFINE_SUM_GROUPS(2x2, NEXT_U8, u8, "r4, r5", "r4, r5, r6, r7, r8, r9")
DEFINE_SUM_GROUPS(2x2, NEXT_U16, u16, "r4, r5", "r4, r5, r6, r7, r8, r9")
DEFINE_SUM_GROUPS(4x2, NEXT_U8, u8, "r4, r5, r6, r7", "r4, r5, r6, r7, r8, r9, r10, r11")
DEFINE_SUM_GROUPS(4x2, NEXT_U16, u16, "r4, r5, r6, r7", "r4, r5, r6, r7, r8, r9, r10, r11")

/* The loops below begin in the middle where n is no multiple of their steps: all steps are as long, in bytes. r1
 * becomes the number of rounds, the first of them perhaps a part. */

#define STEP_1x2_4_PIXELS           \
  "ldrh.w r2, [r12], #2\n\t"        \
  "ldr.w r3, [lr], #4\n\t"          \
  "ldr.w r0, [r8, r2, lsl #2]\n\t"  \
  "ldr.w r1, [r9, r2, lsl #2]\n\t"  \
  "smlad r4, r0, r3, r4\n\t"        \
  "smlad r5, r1, r3, r5\n\t"        \
  "ldr.w r0, [r10, r2, lsl #2]\n\t" \
  "ldr.w r1, [r11, r2, lsl #2]\n\t" \
  "smlad r6, r0, r3, r6\n\t"        \
  "smlad r7, r1, r3, r7\n\t"

/* No register is left for a counter: the end of the columns lies on the stack. */
NAKED void scalpel_sum_1x2_4_pixels(UNUSED int32_t *acc, UNUSED uint32_t n, UNUSED const group_windows *at) {
  __asm__ volatile(
      "push {r0, r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t"
      "ldmia r0, {r4, r5, r6, r7}\n\t"
      "ldrd lr, r12, [r2], #8\n\t"
      "ldmia r2, {r8, r9, r10, r11}\n\t"
      "cmp r1, #0\n\t"
      "beq 3f\n\t"
      "add r0, r12, r1, lsl #1\n\t"
      "push {r0}\n\t"
      "rsb r1, r1, #0\n\t"
      "and r1, r1, #3\n\t"
      "add r1, r1, r1, lsl #2\n\t"
      "adr r0, 2f\n\t"
      "add r0, r0, r1, lsl #3\n\t"
      "mov pc, r0\n\t"
      ".balign 4\n\t"
      "2:\n\t" STEP_1x2_4_PIXELS STEP_1x2_4_PIXELS STEP_1x2_4_PIXELS STEP_1x2_4_PIXELS
      "ldr r0, [sp]\n\t"
      "cmp r12, r0\n\t"
      "bne 2b\n\t"
      "add sp, sp, #4\n\t"
      "3:\n\t"
      "pop {r0}\n\t"
      "stmia r0, {r4, r5, r6, r7}\n\t"
      "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}");
}

/* The sums r4 to r7 become outputs, two in r4 and two in r6; r0 is a row_of_tiles. */
#define FOUR_OUTPUTS               \
  "ldrb r1, [r0, #32]\n\t"         \
  "ldr r2, [r0, #36]\n\t"          \
  "asr r4, r4, r1\n\t"             \
  "asr r5, r5, r1\n\t"             \
  "asr r6, r6, r1\n\t"             \
  "asr r7, r7, r1\n\t"             \
  "ssat r4, #16, r4\n\t"           \
  "ssat r5, #16, r5\n\t"           \
  "ssat r6, #16, r6\n\t"           \
  "ssat r7, #16, r7\n\t"           \
  "pkhbt r4, r4, r5, lsl #16\n\t"  \
  "pkhbt r6, r6, r7, lsl #16\n\t"  \
  "ldr r5, [r0, #40]\n\t"          \
  "ssub16 r1, r4, r2\n\t"          \
  "sel r4, r4, r2\n\t"             \
  "ssub16 r1, r6, r2\n\t"          \
  "sel r6, r6, r2\n\t"             \
  "ssub16 r1, r5, r4\n\t"          \
  "sel r4, r4, r5\n\t"             \
  "ssub16 r1, r5, r6\n\t"          \
  "sel r6, r6, r5\n\t"

/* On the stack, from its top: end of the columns, entry into the first round, tiles left, y, the row. */
NAKED void scalpel_tiles_1x2(UNUSED const row_of_tiles *row) {
  __asm__ volatile(
      "push {r0, r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t"
      "ldrd r1, r3, [r0, #4]\n\t"
      "add r1, r1, r3, lsl #1\n\t"
      "rsb r2, r3, #0\n\t"
      "and r2, r2, #7\n\t"
      "add r2, r2, r2, lsl #2\n\t"
      "adr r12, 2f\n\t"
      "add r2, r12, r2, lsl #3\n\t"
      "adr r12, 3f\n\t"
      "cmp r3, #0\n\t"
      "it eq\n\t"
      "moveq r2, r12\n\t"
      "ldr r3, [r0, #28]\n\t"
      "ldr r12, [r0, #20]\n\t"
      "push {r1, r2, r3, r12}\n\t"
      "ldrd r8, r1, [r0, #12]\n\t"
      "add r9, r8, r1\n\t"
      "add r10, r9, r1\n\t"
      "add r11, r10, r1\n\t"
      "1:\n\t"
      "ldr r4, [r0, #44]\n\t"
      "ldrd lr, r12, [r0]\n\t"
      "ldr r0, [sp, #4]\n\t"
      "mov r5, r4\n\t"
      "mov r6, r4\n\t"
      "mov r7, r4\n\t"
      "mov pc, r0\n\t"
      ".balign 4\n\t"
      "2:\n\t" STEP_1x2_4_PIXELS STEP_1x2_4_PIXELS STEP_1x2_4_PIXELS STEP_1x2_4_PIXELS
          STEP_1x2_4_PIXELS STEP_1x2_4_PIXELS STEP_1x2_4_PIXELS STEP_1x2_4_PIXELS
      "ldr r0, [sp]\n\t"
      "cmp r12, r0\n\t"
      "bne 2b\n\t"
      ".balign 4\n\t"
      "3:\n\t"
      "ldr r0, [sp, #16]\n\t"
      FOUR_OUTPUTS
      "ldrd r1, r2, [sp, #8]\n\t"
      "ldr r3, [r0, #24]\n\t"
      "lsr r5, r4, #16\n\t"
      "lsr r7, r6, #16\n\t"
      "strh r4, [r2]\n\t"
      "strh r5, [r2, r3]\n\t"
      "add r2, r2, r3, lsl #1\n\t"
      "strh r6, [r2]\n\t"
      "strh r7, [r2, r3]\n\t"
      "add r2, r2, r3, lsl #1\n\t"
      "ldr r3, [r0, #16]\n\t"
      "add r8, r8, r3, lsl #2\n\t"
      "add r9, r9, r3, lsl #2\n\t"
      "add r10, r10, r3, lsl #2\n\t"
      "add r11, r11, r3, lsl #2\n\t"
      "subs r1, r1, #1\n\t"
      "strd r1, r2, [sp, #8]\n\t"
      "bne 1b\n\t"
      "add sp, sp, #20\n\t"
      "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}");
}

/* On the stack, from its top: the row, tiles left, y. */
NAKED void scalpel_tiles_4x2(UNUSED const row_of_tiles *row) {
  __asm__ volatile(
      "push {r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t"
      "ldr r1, [r0, #28]\n\t"
      "ldr r2, [r0, #20]\n\t"
      "push {r0, r1, r2}\n\t"
      "ldr r3, [r0, #12]\n\t"
      "5:\n\t"
      "ldr r1, [r0, #8]\n\t"
      "add r2, r0, #44\n\t"
      "ldmia r2, {r4, r5, r6, r7}\n\t"
      "ldrd lr, r12, [r0]\n\t"
      "lsls r0, r1, #31\n\t"
      "bpl 1f\n\t" ONE_GROUP_4x2(NEXT_U16)
      "1:\n\t"
      "bcc 2f\n\t" TWO_GROUPS_4x2(NEXT_U16)
      "2:\n\t"
      "lsrs r1, r1, #2\n\t"
      "beq 4f\n\t"
      "3:\n\t" TWO_GROUPS_4x2(NEXT_U16) TWO_GROUPS_4x2(NEXT_U16)
      "subs r1, r1, #1\n\t"
      "bne 3b\n\t"
      "4:\n\t"
      "ldr r0, [sp]\n\t"
      FOUR_OUTPUTS
      "ldrd r1, r2, [sp, #4]\n\t"
      "ldr r5, [r0, #24]\n\t"
      "ldr r7, [r0, #16]\n\t"
      "str r4, [r2]\n\t"
      "str r6, [r2, #4]\n\t"
      "add r2, r2, r5\n\t"
      "add r3, r3, r7\n\t"
      "subs r1, r1, #1\n\t"
      "strd r1, r2, [sp, #4]\n\t"
      "bne 5b\n\t"
      "add sp, sp, #12\n\t"
      "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}");
}

#define STEP_2x2_2_PIXELS          \
  "ldrh.w r2, [r12], #2\n\t"       \
  "ldr.w r10, [lr], #4\n\t"        \
  "ldr.w r11, [lr], #4\n\t"        \
  "ldr.w r3, [r8, r2, lsl #2]\n\t" \
  "ldr.w r2, [r9, r2, lsl #2]\n\t" \
  "smlad r4, r3, r10, r4\n\t"      \
  "smlad r5, r3, r11, r5\n\t"      \
  "smlad r6, r2, r10, r6\n\t"      \
  "smlad r7, r2, r11, r7\n\t"

NAKED void scalpel_sum_2x2_2_pixels(UNUSED int32_t *acc, UNUSED uint32_t n, UNUSED const group_windows *at) {
  __asm__ volatile(
      "push {r0, r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t"
      "ldmia r0, {r4, r5, r6, r7}\n\t"
      "ldrd lr, r12, [r2]\n\t"
      "ldrd r8, r9, [r2, #8]\n\t"
      "cmp r1, #0\n\t"
      "beq 3f\n\t"
      "rsb r2, r1, #0\n\t"
      "and r2, r2, #3\n\t"
      "adds r1, r1, #3\n\t"
      "lsrs r1, r1, #2\n\t"
      "add r2, r2, r2, lsl #3\n\t"
      "adr r3, 2f\n\t"
      "add r3, r3, r2, lsl #2\n\t"
      "mov pc, r3\n\t"
      ".balign 4\n\t"
      "2:\n\t" STEP_2x2_2_PIXELS STEP_2x2_2_PIXELS STEP_2x2_2_PIXELS STEP_2x2_2_PIXELS
      "subs r1, r1, #1\n\t"
      "bne 2b\n\t"
      "3:\n\t"
      "pop {r0}\n\t"
      "stmia r0, {r4, r5, r6, r7}\n\t"
      "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}");
}

#define STEP_2_ROWS_2_PIXELS  \
  "ldr.w r2, [lr], #4\n\t"    \
  "ldr.w r3, [lr], #4\n\t"    \
  "ldr.w r10, [r8], #4\n\t"   \
  "ldr.w r11, [r9], #4\n\t"   \
  "smlad r4, r10, r2, r4\n\t" \
  "smlad r5, r10, r3, r5\n\t" \
  "smlad r6, r11, r2, r6\n\t" \
  "smlad r7, r11, r3, r7\n\t"

/* On the stack, from its top: length of a run, entry into its first round, x[0], x[1], rounds of a run. In r0 the runs
 * left, in r12 the next offset. An odd value at the end of a run meets a weight of 0, which LDRH spares. */
NAKED void scalpel_sum_2_rows_2_pixels(UNUSED int32_t *acc, UNUSED const run_windows *at) {
  __asm__ volatile(
      "push {r0, r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t"
      "ldmia r0, {r4, r5, r6, r7}\n\t"
      "ldmia r1, {r0, r2, r3, r8, r9, lr}\n\t"
      "mov r12, r3\n\t"
      "lsr r10, r2, #1\n\t"
      "rsb r11, r10, #0\n\t"
      "and r11, r11, #7\n\t"
      "adr r3, 2f\n\t"
      "add r3, r3, r11, lsl #5\n\t"
      "add r10, r10, #7\n\t"
      "lsrs r10, r10, #3\n\t"
      "bne 0f\n\t"
      "adr r3, 3f\n\t"
      "0:\n\t"
      "push {r2, r3, r8, r9, r10}\n\t"
      "1:\n\t"
      "ldr r2, [r12], #4\n\t"
      "ldr r3, [sp, #4]\n\t"
      "ldrd r8, r9, [sp, #8]\n\t"
      "ldr r1, [sp, #16]\n\t"
      "add r8, r8, r2, lsl #1\n\t"
      "add r9, r9, r2, lsl #1\n\t"
      "mov pc, r3\n\t"
      ".balign 4\n\t"
      "2:\n\t" STEP_2_ROWS_2_PIXELS STEP_2_ROWS_2_PIXELS STEP_2_ROWS_2_PIXELS STEP_2_ROWS_2_PIXELS
          STEP_2_ROWS_2_PIXELS STEP_2_ROWS_2_PIXELS STEP_2_ROWS_2_PIXELS STEP_2_ROWS_2_PIXELS
      "subs r1, r1, #1\n\t"
      "bne 2b\n\t"
      ".balign 4\n\t"
      "3:\n\t"
      "ldr r2, [sp]\n\t"
      "lsls r2, r2, #31\n\t"
      "beq 4f\n\t"
      "ldr r2, [lr], #4\n\t"
      "ldr r3, [lr], #4\n\t"
      "ldrh r10, [r8]\n\t"
      "ldrh r11, [r9]\n\t"
      "smlad r4, r10, r2, r4\n\t"
      "smlad r5, r10, r3, r5\n\t"
      "smlad r6, r11, r2, r6\n\t"
      "smlad r7, r11, r3, r7\n\t"
      "4:\n\t"
      "subs r0, r0, #1\n\t"
      "bne 1b\n\t"
      "add sp, sp, #20\n\t"
      "pop {r0}\n\t"
      "stmia r0, {r4, r5, r6, r7}\n\t"
      "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}");
}

#define STEP_4_ROWS           \
  "ldr.w r12, [r3], #4\n\t"   \
  "ldr.w r8, [r2], #4\n\t"    \
  "ldr.w r9, [r2], #4\n\t"    \
  "ldr.w r10, [r2], #4\n\t"   \
  "ldr.w r11, [r2], #4\n\t"   \
  "smlad r4, r12, r8, r4\n\t" \
  "smlad r5, r12, r9, r5\n\t" \
  "smlad r6, r12, r10, r6\n\t" \
  "smlad r7, r12, r11, r7\n\t"

NAKED void scalpel_sum_4_rows(UNUSED int32_t *acc, UNUSED uint32_t n, UNUSED const int16_t *values,
                              UNUSED const int16_t *x) {
  __asm__ volatile(
      "push {r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t"
      "ldmia r0, {r4, r5, r6, r7}\n\t"
      "rsb r8, r1, #0\n\t"
      "and r8, r8, #7\n\t"
      "adds r1, r1, #7\n\t"
      "lsrs r1, r1, #3\n\t"
      "add r8, r8, r8, lsl #3\n\t"
      "adr r9, 2f\n\t"
      "add r9, r9, r8, lsl #2\n\t"
      "mov pc, r9\n\t"
      ".balign 4\n\t"
      "2:\n\t" STEP_4_ROWS STEP_4_ROWS STEP_4_ROWS STEP_4_ROWS STEP_4_ROWS STEP_4_ROWS STEP_4_ROWS STEP_4_ROWS
      "subs r1, r1, #1\n\t"
      "bne 2b\n\t"
      "stmia r0, {r4, r5, r6, r7}\n\t"
      "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}");
}

/* ---- int8 weights: SXTB16 makes pairs of int16 of them. ---- */

/* Into rounds of four steps of BYTES each, as many as n steps fit in; r1 becomes their number. */
#define ENTER_ROUNDS(BYTES)     \
  "rsb r9, r1, #0\n\t"          \
  "and r9, r9, #3\n\t"          \
  "adds r1, r1, #3\n\t"         \
  "lsrs r1, r1, #2\n\t"         \
  "adr r10, 2f\n\t"             \
  "mov r11, #" #BYTES "\n\t"    \
  "mla r10, r9, r11, r10\n\t"   \
  "mov pc, r10\n\t"             \
  ".balign 4\n\t"               \
  "2:\n\t"

#define UNPACK_AND_ADD(ACC, W, EVEN, ODD, FIRST, SECOND)  \
  "sxtb16 " EVEN ", " W "\n\t"                            \
  "sxtb16 " ODD ", " W ", ror #8\n\t"                     \
  "smlad " ACC ", " FIRST ", " EVEN ", " ACC "\n\t"       \
  "smlad " ACC ", " SECOND ", " ODD ", " ACC "\n\t"

#define STEP_2x4(NEXT)              \
  NEXT("r0")                        \
  "ldr.w r2, [lr], #4\n\t"          \
  "ldr.w r11, [lr], #4\n\t"         \
  "ldr.w r6, [r3, r0, lsl #3]\n\t"  \
  "ldr.w r7, [r8, r0, lsl #3]\n\t"  \
  UNPACK_AND_ADD("r4", "r2", "r9", "r10", "r6", "r7") UNPACK_AND_ADD("r5", "r11", "r9", "r10", "r6", "r7")

#define STEP_4x4(NEXT)                                                                            \
  NEXT("r0")                                                                                      \
  "ldr.w r2, [r8, r0, lsl #3]\n\t"                                                                \
  "ldr.w r0, [r3, r0, lsl #3]\n\t"                                                                \
  "ldr.w r9, [lr], #4\n\t"                                                                        \
  "ldr.w r10, [lr], #4\n\t"                                                                       \
  UNPACK_AND_ADD("r4", "r9", "r11", "r9", "r0", "r2") UNPACK_AND_ADD("r5", "r10", "r11", "r10", "r0", "r2") \
  "ldr.w r9, [lr], #4\n\t"                                                                        \
  "ldr.w r10, [lr], #4\n\t"                                                                       \
  UNPACK_AND_ADD("r6", "r9", "r11", "r9", "r0", "r2") UNPACK_AND_ADD("r7", "r10", "r11", "r10", "r0", "r2")

/* ACC are the registers of the sums, in braces. */
#define SUM_W8(ACC, STEP, NEXT, BYTES)                                 \
  __asm__ volatile(                                                    \
      "push {r0, r2, r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t"        \
      "ldmia r0, " ACC "\n\t"                                          \
      "ldrd lr, r12, [r2]\n\t"                                         \
      "cmp r1, #0\n\t"                                                 \
      "beq 3f\n\t"                                                     \
      "add r8, r3, #4\n\t" ENTER_ROUNDS(BYTES)                      \
      STEP(NEXT) STEP(NEXT) STEP(NEXT) STEP(NEXT)                      \
      "subs r1, r1, #1\n\t"                                            \
      "bne 2b\n\t"                                                     \
      "3:\n\t"                                                         \
      "pop {r0, r2}\n\t"                                               \
      "strd lr, r12, [r2]\n\t"                                         \
      "stmia r0, " ACC "\n\t"                                          \
      "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}")

#define DEFINE_SUM_W8(SHAPE, ACC, BYTES)                                                                             \
  NAKED void scalpel_sum_##SHAPE##_u8(UNUSED int32_t *acc, UNUSED uint32_t n, UNUSED byte_group_position *at,        \
                                      UNUSED const int16_t *x) {                                                     \
    SUM_W8(ACC, STEP_##SHAPE, NEXT_U8, BYTES);                                                                       \
  }                                                                                                                  \
  NAKED void scalpel_sum_##SHAPE##_u16(UNUSED int32_t *acc, UNUSED uint32_t n, UNUSED byte_group_position *at,       \
                                       UNUSED const int16_t *x) {                                                    \
    SUM_W8(ACC, STEP_##SHAPE, NEXT_U16, BYTES);                                                                      \
  }
DEFINE_SUM_W8(2x4, "{r4, r5}", 52)
DEFINE_SUM_W8(4x4, "{r4, r5, r6, r7}", 92)

/* The even, then the odd weights at four pixels. */
#define STEP_1x4_4_PIXELS           \
  "ldrh.w r2, [r12], #2\n\t"        \
  "ldr.w r3, [lr]\n\t"              \
  "lsl.w r2, r2, #3\n\t"            \
  "ldr.w r0, [r8, r2]\n\t"          \
  "ldr.w r1, [r9, r2]\n\t"          \
  "sxtb16 r3, r3\n\t"               \
  "smlad r4, r0, r3, r4\n\t"        \
  "smlad r5, r1, r3, r5\n\t"        \
  "ldr.w r0, [r10, r2]\n\t"         \
  "ldr.w r1, [r11, r2]\n\t"         \
  "add.w r2, r2, #4\n\t"            \
  "smlad r6, r0, r3, r6\n\t"        \
  "smlad r7, r1, r3, r7\n\t"        \
  "ldr.w r3, [lr], #4\n\t"          \
  "ldr.w r0, [r8, r2]\n\t"          \
  "ldr.w r1, [r9, r2]\n\t"          \
  "sxtb16 r3, r3, ror #8\n\t"       \
  "smlad r4, r0, r3, r4\n\t"        \
  "smlad r5, r1, r3, r5\n\t"        \
  "ldr.w r0, [r10, r2]\n\t"         \
  "ldr.w r1, [r11, r2]\n\t"         \
  "smlad r6, r0, r3, r6\n\t"        \
  "smlad r7, r1, r3, r7\n\t"

/* The same of two rows at two pixels. */
#define STEP_2x4_2_PIXELS           \
  "ldrh.w r2, [r12], #2\n\t"        \
  "ldrd r10, r11, [lr], #8\n\t"     \
  "lsl.w r2, r2, #3\n\t"            \
  "ldr.w r3, [r8, r2]\n\t"          \
  "sxtb16 r0, r10\n\t"              \
  "sxtb16 r1, r11\n\t"              \
  "smlad r4, r3, r0, r4\n\t"        \
  "smlad r5, r3, r1, r5\n\t"        \
  "ldr.w r3, [r9, r2]\n\t"          \
  "add.w r2, r2, #4\n\t"            \
  "smlad r6, r3, r0, r6\n\t"        \
  "smlad r7, r3, r1, r7\n\t"        \
  "ldr.w r0, [r8, r2]\n\t"          \
  "ldr.w r1, [r9, r2]\n\t"          \
  "sxtb16 r10, r10, ror #8\n\t"     \
  "sxtb16 r11, r11, ror #8\n\t"     \
  "smlad r4, r0, r10, r4\n\t"       \
  "smlad r5, r0, r11, r5\n\t"       \
  "smlad r6, r1, r10, r6\n\t"       \
  "smlad r7, r1, r11, r7\n\t"

/* Into rounds of four steps of BYTES each. On the stack, from its top: end of the columns, entry into the first round,
 * tiles left, y, the row. */
#define BEGIN_BYTE_TILES(BYTES)                                   \
  "push {r0, r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t"           \
  "ldrd r1, r3, [r0, #4]\n\t"                                     \
  "add r1, r1, r3, lsl #1\n\t"                                    \
  "rsb r2, r3, #0\n\t"                                            \
  "and r2, r2, #3\n\t"                                            \
  "mov r4, #" #BYTES "\n\t"                                       \
  "adr r12, 2f\n\t"                                               \
  "mla r2, r2, r4, r12\n\t"                                       \
  "adr r12, 3f\n\t"                                               \
  "cmp r3, #0\n\t"                                                \
  "it eq\n\t"                                                     \
  "moveq r2, r12\n\t"                                             \
  "ldr r3, [r0, #28]\n\t"                                         \
  "ldr r12, [r0, #20]\n\t"                                        \
  "push {r1, r2, r3, r12}\n\t"                                    \
  "ldrd r8, r1, [r0, #12]\n\t"                                    \
  "add r9, r8, r1\n\t"

#define ROUNDS_OF_TILE(STEP)                \
  "ldrd lr, r12, [r0]\n\t"                  \
  "ldr r0, [sp, #4]\n\t"                    \
  "mov pc, r0\n\t"                          \
  ".balign 4\n\t"                           \
  "2:\n\t" STEP STEP STEP STEP              \
  "ldr r0, [sp]\n\t"                        \
  "cmp r12, r0\n\t"                         \
  "bne 2b\n\t"                              \
  ".balign 4\n\t"                           \
  "3:\n\t"                                  \
  "ldr r0, [sp, #16]\n\t"

/* r4 to r7 are shifted: limits them, two in r4 and two in r6. */
#define LIMIT_BYTE_OUTPUTS         \
  "ldrd r1, r2, [r0, #32]\n\t"     \
  "ssat r4, #16, r4\n\t"           \
  "ssat r5, #16, r5\n\t"           \
  "ssat r6, #16, r6\n\t"           \
  "ssat r7, #16, r7\n\t"           \
  "pkhbt r4, r4, r5, lsl #16\n\t"  \
  "pkhbt r6, r6, r7, lsl #16\n\t"  \
  "ssub16 r3, r4, r1\n\t"          \
  "sel r4, r4, r1\n\t"             \
  "ssub16 r3, r6, r1\n\t"          \
  "sel r6, r6, r1\n\t"             \
  "ssub16 r3, r2, r4\n\t"          \
  "sel r4, r4, r2\n\t"             \
  "ssub16 r3, r2, r6\n\t"          \
  "sel r6, r6, r2\n\t"             \
  "lsr r5, r4, #16\n\t"            \
  "lsr r7, r6, #16\n\t"            \
  "ldrd r1, r2, [sp, #8]\n\t"      \
  "ldr r3, [r0, #24]\n\t"          \
  "ldr r12, [r0, #40]\n\t"

#define END_BYTE_TILES                        \
  "subs r1, r1, #1\n\t"                       \
  "strd r1, r2, [sp, #8]\n\t"                 \
  "bne 1b\n\t"                                \
  "add sp, sp, #20\n\t"                       \
  "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}"

NAKED void scalpel_tiles_1x4(UNUSED const byte_row_of_tiles *row) {
  __asm__ volatile(
      BEGIN_BYTE_TILES(92)
      "add r10, r9, r1\n\t"
      "add r11, r10, r1\n\t"
      "1:\n\t"
      "ldr r4, [r0, #44]\n\t"
      "mov r5, r4\n\t"
      "mov r6, r4\n\t"
      "mov r7, r4\n\t"
      ROUNDS_OF_TILE(STEP_1x4_4_PIXELS)
      "ldr r1, [r0, #52]\n\t"
      "ldr r2, [r0, #60]\n\t"
      "ldr r3, [r0, #68]\n\t"
      "smmla r4, r4, r1, r2\n\t"
      "smmla r5, r5, r1, r2\n\t"
      "smmla r6, r6, r1, r2\n\t"
      "smmla r7, r7, r1, r2\n\t"
      "asr r4, r4, r3\n\t"
      "asr r5, r5, r3\n\t"
      "asr r6, r6, r3\n\t"
      "asr r7, r7, r3\n\t"
      LIMIT_BYTE_OUTPUTS
      "cmp r12, #0\n\t"
      "beq 4f\n\t"
      "strb r4, [r2]\n\t"
      "strb r5, [r2, r3]\n\t"
      "add r2, r2, r3, lsl #1\n\t"
      "strb r6, [r2]\n\t"
      "strb r7, [r2, r3]\n\t"
      "b 5f\n\t"
      "4:\n\t"
      "strh r4, [r2]\n\t"
      "strh r5, [r2, r3]\n\t"
      "add r2, r2, r3, lsl #1\n\t"
      "strh r6, [r2]\n\t"
      "strh r7, [r2, r3]\n\t"
      "5:\n\t"
      "add r2, r2, r3, lsl #1\n\t"
      "ldr r3, [r0, #16]\n\t"
      "add r8, r8, r3, lsl #2\n\t"
      "add r9, r9, r3, lsl #2\n\t"
      "add r10, r10, r3, lsl #2\n\t"
      "add r11, r11, r3, lsl #2\n\t"
      END_BYTE_TILES);
}

NAKED void scalpel_tiles_2x4(UNUSED const byte_row_of_tiles *row) {
  __asm__ volatile(
      BEGIN_BYTE_TILES(80)
      "1:\n\t"
      "ldrd r4, r5, [r0, #44]\n\t"
      "mov r6, r4\n\t"
      "mov r7, r5\n\t"
      ROUNDS_OF_TILE(STEP_2x4_2_PIXELS)
      "ldrd r1, r2, [r0, #52]\n\t"
      "ldrd r3, r10, [r0, #60]\n\t"
      "ldrd r11, r12, [r0, #68]\n\t"
      "smmla r4, r4, r1, r3\n\t"
      "smmla r5, r5, r2, r10\n\t"
      "smmla r6, r6, r1, r3\n\t"
      "smmla r7, r7, r2, r10\n\t"
      "asr r4, r4, r11\n\t"
      "asr r5, r5, r12\n\t"
      "asr r6, r6, r11\n\t"
      "asr r7, r7, r12\n\t"
      LIMIT_BYTE_OUTPUTS
      "cmp r12, #0\n\t"
      "beq 4f\n\t"
      "strb r4, [r2]\n\t"
      "strb r5, [r2, #1]\n\t"
      "add r2, r2, r3\n\t"
      "strb r6, [r2]\n\t"
      "strb r7, [r2, #1]\n\t"
      "b 5f\n\t"
      "4:\n\t"
      "str r4, [r2]\n\t"
      "add r2, r2, r3\n\t"
      "str r6, [r2]\n\t"
      "5:\n\t"
      "add r2, r2, r3\n\t"
      "ldr r3, [r0, #16]\n\t"
      "add r8, r8, r3, lsl #1\n\t"
      "add r9, r9, r3, lsl #1\n\t"
      END_BYTE_TILES);
}

/* The two even, then the two odd weights of both rows at both pixels. */
#define EVEN_2_ROWS_2_PIXELS    \
  "sxtb16 r3, r0\n\t"           \
  "sxtb16 r12, r2\n\t"          \
  "smlad r4, r10, r3, r4\n\t"   \
  "smlad r5, r10, r12, r5\n\t"  \
  "smlad r6, r11, r3, r6\n\t"   \
  "smlad r7, r11, r12, r7\n\t"
#define ODD_2_ROWS_2_PIXELS     \
  "sxtb16 r0, r0, ror #8\n\t"   \
  "sxtb16 r2, r2, ror #8\n\t"   \
  "smlad r4, r10, r0, r4\n\t"   \
  "smlad r5, r10, r2, r5\n\t"   \
  "smlad r6, r11, r0, r6\n\t"   \
  "smlad r7, r11, r2, r7\n\t"
#define TWO_WEIGHTS "ldr.w r0, [lr], #4\n\t" "ldr.w r2, [lr], #4\n\t"
#define TWO_PIXELS "ldr.w r10, [r8], #4\n\t" "ldr.w r11, [r9], #4\n\t"
#define STEP_W8_2_ROWS_2_PIXELS TWO_WEIGHTS TWO_PIXELS EVEN_2_ROWS_2_PIXELS TWO_PIXELS ODD_2_ROWS_2_PIXELS

/* On the stack, from its top: length of a run, entry into its first round, x[0], x[1], rounds of a run, runs left, the
 * next offset. The last 1 to 3 values of a run come last. */
NAKED void scalpel_sum_w8_2_rows_2_pixels(UNUSED int32_t *acc, UNUSED const byte_run_windows *at) {
  __asm__ volatile(
      "push {r0, r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t"
      "ldmia r0, {r4, r5, r6, r7}\n\t"
      "ldmia r1, {r0, r2, r3, r8, r9, lr}\n\t"
      "push {r0, r3}\n\t"
      "lsr r10, r2, #2\n\t"
      "rsb r11, r10, #0\n\t"
      "and r11, r11, #3\n\t"
      "add r11, r11, r11, lsl #3\n\t"
      "adr r3, 2f\n\t"
      "add r3, r3, r11, lsl #3\n\t"
      "add r10, r10, #3\n\t"
      "lsrs r10, r10, #2\n\t"
      "bne 0f\n\t"
      "adr r3, 3f\n\t"
      "0:\n\t"
      "push {r2, r3, r8, r9, r10}\n\t"
      "1:\n\t"
      "ldr r12, [sp, #24]\n\t"
      "ldr r3, [sp, #4]\n\t"
      "ldrd r8, r9, [sp, #8]\n\t"
      "ldr r1, [sp, #16]\n\t"
      "ldr r2, [r12], #4\n\t"
      "str r12, [sp, #24]\n\t"
      "add r8, r8, r2, lsl #1\n\t"
      "add r9, r9, r2, lsl #1\n\t"
      "mov pc, r3\n\t"
      ".balign 4\n\t"
      "2:\n\t" STEP_W8_2_ROWS_2_PIXELS STEP_W8_2_ROWS_2_PIXELS STEP_W8_2_ROWS_2_PIXELS STEP_W8_2_ROWS_2_PIXELS
      "subs r1, r1, #1\n\t"
      "bne 2b\n\t"
      ".balign 4\n\t"
      "3:\n\t"
      "ldr r1, [sp]\n\t"
      "ands r1, r1, #3\n\t"
      "beq 6f\n\t" TWO_WEIGHTS
      "cmp r1, #2\n\t"
      "blo 5f\n\t" TWO_PIXELS EVEN_2_ROWS_2_PIXELS
      "beq 6f\n\t"
      "ldrh r10, [r8]\n\t"
      "ldrh r11, [r9]\n\t" ODD_2_ROWS_2_PIXELS
      "b 6f\n\t"
      "5:\n\t"
      "ldrh r10, [r8]\n\t"
      "ldrh r11, [r9]\n\t" EVEN_2_ROWS_2_PIXELS
      "6:\n\t"
      "ldr r1, [sp, #20]\n\t"
      "subs r1, r1, #1\n\t"
      "str r1, [sp, #20]\n\t"
      "bne 1b\n\t"
      "add sp, sp, #28\n\t"
      "pop {r0}\n\t"
      "stmia r0, {r4, r5, r6, r7}\n\t"
      "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}");
}

#define STEP_W8_4_ROWS                                                                                      \
  "ldr.w r0, [r3], #4\n\t"                                                                                  \
  "ldr.w r12, [r3], #4\n\t"                                                                                 \
  "ldr.w r8, [r2], #4\n\t"                                                                                  \
  "ldr.w r9, [r2], #4\n\t"                                                                                  \
  "ldr.w r10, [r2], #4\n\t"                                                                                 \
  "ldr.w r11, [r2], #4\n\t"                                                                                 \
  UNPACK_AND_ADD("r4", "r8", "lr", "r8", "r0", "r12") UNPACK_AND_ADD("r5", "r9", "lr", "r9", "r0", "r12")    \
  UNPACK_AND_ADD("r6", "r10", "lr", "r10", "r0", "r12") UNPACK_AND_ADD("r7", "r11", "lr", "r11", "r0", "r12")

NAKED void scalpel_sum_w8_4_rows(UNUSED int32_t *acc, UNUSED uint32_t n, UNUSED const int8_t *values,
                                 UNUSED const int16_t *x) {
  __asm__ volatile(
      "push {r0, r4, r5, r6, r7, r8, r9, r10, r11, lr}\n\t"
      "ldmia r0, {r4, r5, r6, r7}\n\t" ENTER_ROUNDS(88)
      STEP_W8_4_ROWS STEP_W8_4_ROWS STEP_W8_4_ROWS STEP_W8_4_ROWS
      "subs r1, r1, #1\n\t"
      "bne 2b\n\t"
      "pop {r0}\n\t"
      "stmia r0, {r4, r5, r6, r7}\n\t"
      "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}");
}

#endif

/* An empty translation unit would not be C99. */
typedef group_position scalpel_sums;
