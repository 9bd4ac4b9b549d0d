#include "instructions.h"

typedef struct {
  uint32_t control;
  uint32_t value;
  uint32_t reload;
} timer;

#define TIMER0 ((volatile timer *)0x40000000u)

void instructions_start(void) {
  TIMER0->control = 0;
  TIMER0->reload = UINT32_MAX;
  TIMER0->value = UINT32_MAX;
  TIMER0->control = 1;
}

uint32_t instructions(void) { return (uint32_t)((uint64_t)(UINT32_MAX - TIMER0->value) * 40u / 64u); }
