/* SPDX-License-Identifier: BSD-2-Clause
 * The sixteen conditions of Jcc, SETcc and CMOVcc over cpu->cc: SDM 1 appendix B. */
#ifndef SKEP_CPU_SOFT_INTEGER_CONDITION_H
#define SKEP_CPU_SOFT_INTEGER_CONDITION_H

#include "cpu/soft/cpu.h"

/* SF != OF: bit 15 against bit 0. */
#define CC_LESS(cc) ((((cc) >> 15) ^ (cc)) & 1)

#define CONDITION_O(cc)   ((cc)&CC_OF)
#define CONDITION_NO(cc)  (!((cc)&CC_OF))
#define CONDITION_B(cc)   ((cc)&CC_CF)
#define CONDITION_NB(cc)  (!((cc)&CC_CF))
#define CONDITION_Z(cc)   ((cc)&CC_ZF)
#define CONDITION_NZ(cc)  (!((cc)&CC_ZF))
#define CONDITION_BE(cc)  ((cc) & (CC_CF | CC_ZF))
#define CONDITION_NBE(cc) (!((cc) & (CC_CF | CC_ZF)))
#define CONDITION_S(cc)   ((cc)&CC_SF)
#define CONDITION_NS(cc)  (!((cc)&CC_SF))
#define CONDITION_P(cc)   ((cc)&CC_PF)
#define CONDITION_NP(cc)  (!((cc)&CC_PF))
#define CONDITION_L(cc)   (CC_LESS(cc))
#define CONDITION_NL(cc)  (!CC_LESS(cc))
#define CONDITION_LE(cc)  (CC_LESS(cc) || ((cc)&CC_ZF))
#define CONDITION_NLE(cc) (!CC_LESS(cc) && !((cc)&CC_ZF))

/* Expands X once for each condition. */
#define FOR_EACH_CONDITION(X)                                                                      \
    X(O) X(NO) X(B) X(NB) X(Z) X(NZ) X(BE) X(NBE) X(S) X(NS) X(P) X(NP) X(L) X(NL) X(LE) X(NLE)

#endif
