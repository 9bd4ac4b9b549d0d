/* From reset to main, and out with main's result. */
#include <stdint.h>
#include <string.h>

#include "semihosting.h"

int main(void);
void reset(void);

extern uint32_t data_start[];
extern uint32_t data_end[];
extern const uint32_t data_source[];
extern uint32_t bss_start[];
extern uint32_t bss_end[];
extern uint32_t stack_top[];

void reset(void) {
#if defined(__ARM_FP)
  *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* CPACR: the FPU for everybody */
  __asm__ volatile("dsb\n\tisb" ::: "memory");
#endif
  memcpy(data_start, data_source, (size_t)((uintptr_t)data_end - (uintptr_t)data_start));
  memset(bss_start, 0, (size_t)((uintptr_t)bss_end - (uintptr_t)bss_start));
  semihosting_exit(main());
}

static void fault(void) {
  semihosting_print("a fault stopped the program\n");
  semihosting_exit(255);
}

typedef union {
  const uint32_t *stack;
  void (*handler)(void);
} vector;

__attribute__((section(".vectors"), used)) static const vector vectors[7] = {
    {.stack = stack_top}, {.handler = reset}, {.handler = fault}, {.handler = fault},
    {.handler = fault},   {.handler = fault}, {.handler = fault},
};
