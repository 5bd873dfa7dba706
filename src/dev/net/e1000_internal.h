/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What the parts of the e1000 share: registers, state, and who offers what.
 *
 * Threads: registers are used by vCPUs, frames move on the loop's thread, delays end on the
 * clock's. One lock guards all but the frame buffers, which are the loop's thread's. The lock is
 * not held while the back end sends, since it may answer at once; `generation` then tells whether
 * the card was reset meanwhile.
 */
#ifndef SKEP_DEV_NET_E1000_INTERNAL_H
#define SKEP_DEV_NET_E1000_INTERNAL_H

#include "base/wake.h"
#include "dev/msix.h"
#include "dev/net/e1000.h"

#include <pthread.h>

/* Offsets of registers. Names as in the manuals. */
enum {
    CTRL = 0x0000,
    STATUS = 0x0008,
    EECD = 0x0010,
    EERD = 0x0014,
    CTRL_EXT = 0x0018,
    MDIC = 0x0020,
    FCAH = 0x002c,
    FCT = 0x0030,
    VET = 0x0038,
    ICR = 0x00c0,
    ITR = 0x00c4,
    ICS = 0x00c8,
    IMS = 0x00d0,
    IMC = 0x00d8,
    EIAC = 0x00dc,
    IAM = 0x00e0,
    IVAR = 0x00e4,
    EITR = 0x00e8, /* five of them */
    RCTL = 0x0100,
    FCTTV = 0x0170,
    TCTL = 0x0400,
    EXTCNF = 0x0f00,
    PBA = 0x1000,
    EEMNGCTL = 0x1010,
    PSRCTL = 0x2170,
    RX_RING = 0x2800, /* of queue 0; of queue 1 at +0x100 */
    RDTR = 0x2820,
    RADV = 0x282c,
    TX_RING = 0x3800,
    TIDV = 0x3820,
    TADV = 0x382c,
    STATISTICS = 0x4000,
    STATISTICS_END = 0x4128,
    RXCSUM = 0x5000,
    RFCTL = 0x5008,
    MTA = 0x5200,
    RAL0 = 0x5400,
    RAH0 = 0x5404,
    VFTA = 0x5600,
    MRQC = 0x5818,
    SWSM = 0x5b50,
    FWSM = 0x5b54,
    RETA = 0x5c00,
    RSSRK = 0x5c80,
    REGISTERS_END = 0x8000,

    /* in a ring's block */
    RING_BASE_LOW = 0x00,
    RING_BASE_HIGH = 0x04,
    RING_LENGTH = 0x08,
    RING_HEAD = 0x10,
    RING_TAIL = 0x18,
    RING_STRIDE = 0x100,
};

/* Statistics: read to clear. */
enum {
    MPC = 0x4010,
    PRC64 = 0x405c,
    GPRC = 0x4074,
    BPRC = 0x4078,
    MPRC = 0x407c,
    GPTC = 0x4080,
    GORC = 0x4088, /* 64 bits, as the other counters of octets */
    GOTC = 0x4090,
    RNBC = 0x40a0,
    ROC = 0x40ac,
    TOR = 0x40c0,
    TOT = 0x40c8,
    TPR = 0x40d0,
    TPT = 0x40d4,
    PTC64 = 0x40d8,
    MPTC = 0x40f0,
    BPTC = 0x40f4,
    TSCTC = 0x40f8,
};

#define CTRL_GIO_MASTER_DISABLE (1U << 2)
#define CTRL_SLU                (1U << 6)
#define CTRL_RST                (1U << 26)
#define CTRL_VME                (1U << 30)
#define CTRL_PHY_RST            (1U << 31)
#define CTRL_EXT_EE_RST         (1U << 13)
#define CTRL_EXT_EIAME          (1U << 24)
#define CTRL_EXT_IAME           (1U << 27)
#define STATUS_FULL_DUPLEX      (1U << 0)
#define STATUS_LINK_UP          (1U << 1)
#define STATUS_1000             (1U << 7)
#define STATUS_PHY_RESET        (1U << 10)
#define STATUS_GIO_MASTER       (1U << 19)
#define RCTL_EN                 (1U << 1)
#define RCTL_UPE                (1U << 3)
#define RCTL_MPE                (1U << 4)
#define RCTL_LPE                (1U << 5)
#define RCTL_LOOPBACK           (3U << 6)
#define RCTL_BAM                (1U << 15)
#define RCTL_VFE                (1U << 18)
#define RCTL_CFIEN              (1U << 19)
#define RCTL_CFI                (1U << 20)
#define RCTL_BSEX               (1U << 25)
#define RCTL_SECRC              (1U << 26)
#define TCTL_EN                 (1U << 1)
#define TCTL_PSP                (1U << 3)

/* Causes of interrupts. */
#define CAUSE_TXDW     (1U << 0)
#define CAUSE_TXQE     (1U << 1)
#define CAUSE_LSC      (1U << 2)
#define CAUSE_RXDMT0   (1U << 4)
#define CAUSE_RXO      (1U << 6)
#define CAUSE_RXT0     (1U << 7)
#define CAUSE_MDAC     (1U << 9)
#define CAUSE_RXQ0     (1U << 20)
#define CAUSE_TXQ0     (1U << 22)
#define CAUSE_OTHER    (1U << 24)
#define CAUSE_ASSERTED (1U << 31)

enum {
    E1000_QUEUES = 2, /* the 8254x use the first */
    E1000_VECTORS = 5,
    E1000_EEPROM_WORDS = 64,
    E1000_PHY_REGISTERS = 32,
    E1000_RX_MAX_BYTES = 16384,
    E1000_DESCRIPTOR_BYTES = 16,
};

/* A cause that waits for more of its kind: it comes at `due_ns`; 0: nothing waits. */
struct e1000_delay {
    uint64_t due_ns, limit_ns;
    uint32_t causes;
};

/* The context descriptor in force, as words 0 … 3. */
struct e1000_tx {
    uint32_t context[4];
    bool in_frame; /* some descriptors of a frame were taken, but not its last */
    bool is_extended, segments, is_too_long;
    uint8_t options; /* POPTS */
    uint32_t size_bytes;
    uint8_t bytes[NET_FRAME_MAX_BYTES];
};

/* The serial EEPROM as EECD's wires see it (Microwire, 4-wire: 93C46). */
struct e1000_wires {
    uint32_t bits; /* shifted in since chip select; counted by bit_count */
    uint16_t out;
    uint8_t bit_count, out_left;
};

struct e1000 {
    bool is_82574, is_connected; /* the back end's link */
    struct pci_function *function;
    struct msix *msix; /* NULL: none */
    struct ram *ram;
    struct clock *clock;
    struct clock_timer *timer;
    struct wake *wake;
    const struct log *log;
    struct log_limit log_limit;
    struct net_backend backend;
    uint16_t eeprom[E1000_EEPROM_WORDS];

    pthread_mutex_t lock;
    uint32_t regs[REGISTERS_END / 4];
    uint32_t io_address;
    uint16_t phy[E1000_PHY_REGISTERS];
    struct e1000_wires wires;
    struct e1000_delay rx_delay, tx_delay;
    uint64_t next_interrupt_ns; /* throttled before */
    bool throttled, intx;
    uint32_t generation;
    bool rx_waits, resume_wanted;

    struct e1000_tx tx[E1000_QUEUES];
    uint8_t segment[NET_FRAME_MAX_BYTES];
    uint8_t rx_bytes[E1000_RX_MAX_BYTES + 4];
};

static inline uint32_t *e1000_reg(struct e1000 *e, unsigned offset)
{
    return &e->regs[offset / 4];
}

/* A ring as its registers stand. False when they are not those of a ring that could be walked. */
struct e1000_ring {
    unsigned block; /* offset of its registers */
    uint64_t base;
    uint32_t count, head, tail; /* in units of 16 bytes */
};
bool e1000_ring(struct e1000 *e, unsigned block, struct e1000_ring *ring);

/* ---- interrupts (e1000_interrupt.c); with the lock held ---- */

void e1000_raise(struct e1000 *e, uint32_t causes);
/* Causes that RDTR and RADV (or TIDV and TADV) may hold back. */
void e1000_raise_rx(struct e1000 *e, uint32_t causes);
void e1000_raise_tx(struct e1000 *e, uint32_t causes, bool may_wait);
void e1000_update_interrupt(struct e1000 *e);
uint32_t e1000_read_icr(struct e1000 *e);
void e1000_write_icr(struct e1000 *e, uint32_t value);
void e1000_write_ims(struct e1000 *e, uint32_t value);
void e1000_arm_timer(struct e1000 *e);
void e1000_timer_fired(void *opaque); /* takes the lock */

/* ---- EEPROM and PHY (e1000_eeprom.c, e1000_phy.c); with the lock held ---- */

void e1000_eeprom_init(struct e1000 *e, const struct e1000_config *config);
void e1000_eeprom_load_address(struct e1000 *e);
void e1000_write_eerd(struct e1000 *e, uint32_t value);
void e1000_write_eecd(struct e1000 *e, uint32_t value);
uint32_t e1000_read_eecd(struct e1000 *e);
void e1000_phy_reset(struct e1000 *e);
void e1000_write_mdic(struct e1000 *e, uint32_t value);
bool e1000_link_up(struct e1000 *e);
bool e1000_loops_back(struct e1000 *e);

/* ---- frames ---- */

uint32_t e1000_sum(const uint8_t *bytes, size_t size_bytes, uint32_t sum); /* big-endian words */
uint16_t e1000_fold(uint32_t sum);
uint32_t e1000_crc(const uint8_t *bytes, size_t size_bytes); /* Ethernet's */
void e1000_count(struct e1000 *e, unsigned counter, uint64_t n);
void e1000_count_octets(struct e1000 *e, unsigned counter, uint64_t n);
void e1000_count_size(struct e1000 *e, unsigned first, uint64_t frame_bytes);

/* On the loop's thread, with the lock held (and let go meanwhile). */
void e1000_transmit(struct e1000 *e);

enum e1000_rx_result { E1000_RX_DONE, E1000_RX_NO_ROOM, E1000_RX_DROP };
enum e1000_rx_result e1000_receive(struct e1000 *e, const struct iovec *iov, unsigned iov_count);

/* What of a received frame the card looks at. */
struct e1000_parsed {
    bool is_ip4, is_ip6, is_tcp, is_udp, is_fragment;
    bool ip_ok, l4_ok, l4_checked;
    uint16_t ip_id;
    uint32_t hash;
    uint8_t hash_type;     /* 0: none */
    unsigned header_bytes; /* up to the end of the last header known */
};
void e1000_parse(struct e1000 *e, const uint8_t *frame, size_t size_bytes,
                 struct e1000_parsed *parsed);

/* ---- registers ---- */

uint64_t e1000_mmio_read(void *opaque, uint64_t offset, unsigned size_bytes);
void e1000_mmio_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes);
uint64_t e1000_io_read(void *opaque, uint64_t offset, unsigned size_bytes);
void e1000_io_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes);
void e1000_registers_reset(struct e1000 *e, bool with_phy);

#endif
