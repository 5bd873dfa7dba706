/* SPDX-License-Identifier: BSD-2-Clause
 *
 * APIC ids of processors in sockets, cores and threads: bit fields of a width that holds the
 * number of each (SDM 3A 9.9.1), so that ids have holes where a number is no power of two.
 */
#ifndef SKEP_CPU_TOPOLOGY_H
#define SKEP_CPU_TOPOLOGY_H

/* Bits that hold the numbers 0 … count - 1. */
static inline unsigned topology_bits(unsigned count)
{
    unsigned bits = 0;
    while (1u << bits < count)
        bits++;
    return bits;
}

/* Bits of an APIC id below the socket's number. */
static inline unsigned topology_socket_shift(unsigned cores, unsigned threads)
{
    return topology_bits(cores) + topology_bits(threads);
}

/* Of processor `index`, counted by threads, then cores, then sockets. Below 255 for up to 64
 * processors. */
static inline unsigned topology_apic_id(unsigned cores, unsigned threads, unsigned index)
{
    unsigned thread = index % threads, core = index / threads % cores;
    unsigned socket = index / (threads * cores);
    return socket << topology_socket_shift(cores, threads) | core << topology_bits(threads) |
           thread;
}

#endif
