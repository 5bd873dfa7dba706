/* SPDX-License-Identifier: BSD-2-Clause
 * The Intel cards through the bus, over a back end that the test plays: 8254x and 82574L. Sums are
 * computed here anew, bit by bit, not with the card's code. */
#include "dev/virtio_driver.h"

#include "dev/net/e1000.h"

enum {
    SLOT = 4,
    COUNT = 16, /* descriptors of a ring */
    BUFFER = 2048,
    FRAMES = 64,
    CTRL = 0,
    STATUS = 8,
    EECD = 0x10,
    EERD = 0x14,
    MDIC = 0x20,
    ICR = 0xc0,
    ITR = 0xc4,
    ICS = 0xc8,
    IMS = 0xd0,
    IMC = 0xd8,
    EIAC = 0xdc,
    IVAR = 0xe4,
    RCTL = 0x100,
    TCTL = 0x400,
    RX = 0x2800,
    RDTR = 0x2820,
    TX = 0x3800,
    GPRC = 0x4074,
    GPTC = 0x4080,
    RXCSUM = 0x5000,
    RFCTL = 0x5008,
    MTA = 0x5200,
    RAL = 0x5400,
    VFTA = 0x5600,
    MRQC = 0x5818,
    RETA = 0x5c00,
    RSSRK = 0x5c80,
    END = 1 << 24,
    REPORT = 1 << 27,
    EXTENDED = 1 << 29,
};
#define RCTL_ON (1U << 1 | 1U << 15 | 1U << 26) /* enabled, broadcasts, no FCS */

static const uint8_t mac[6] = {0x52, 0x54, 0, 1, 2, 3};

struct fixture {
    struct vd_machine m;
    struct clock *clock;
    struct e1000 *card;
    const struct device_ops *ops;
    struct net_receiver receiver;
    uint64_t bar, tx, rx, buffers, data;
    uint32_t tx_tail;
    unsigned sent_count, resumed;
    size_t sent_bytes[FRAMES];
    uint8_t sent[FRAMES][2048];
    bool resets; /* the card, from inside send() */
};

static uint32_t get(struct fixture *f, unsigned offset)
{
    return (uint32_t)bus_read(f->m.bus, BUS_MMIO, f->bar + offset, 4);
}

static void set(struct fixture *f, unsigned offset, uint32_t value)
{
    bus_write(f->m.bus, BUS_MMIO, f->bar + offset, value, 4);
}

static void backend_send(void *opaque, const struct iovec *iov, unsigned iov_count,
                         const struct net_offload *offload)
{
    struct fixture *f = opaque;
    size_t size = 0;
    assert_true(f->sent_count < FRAMES && !offload->needs_checksum && !offload->gso);
    for (unsigned i = 0; i < iov_count; i++) {
        assert_true(size + iov[i].iov_len <= sizeof(f->sent[0]));
        memcpy(f->sent[f->sent_count] + size, iov[i].iov_base, iov[i].iov_len);
        size += iov[i].iov_len;
    }
    f->sent_bytes[f->sent_count++] = size;
    if (f->resets)
        set(f, CTRL, 1U << 26);
}

static void backend_set_receiver(void *opaque, const struct net_receiver *receiver)
{
    struct fixture *f = opaque;
    f->receiver = receiver ? *receiver : (struct net_receiver){0};
}

static void backend_resume(void *opaque)
{
    ((struct fixture *)opaque)->resumed++;
}

static void turn(struct fixture *f)
{
    for (int i = 0; i < 4; i++)
        loop_run_once(f->m.loop, 0);
}

static void start(struct fixture *f)
{
    set(f, TX, (uint32_t)f->tx);
    set(f, TX + 8, COUNT * 16);
    set(f, RX, (uint32_t)f->rx);
    set(f, RX + 8, COUNT * 16);
    for (unsigned i = 0; i < COUNT; i++)
        vd_put(&f->m, f->rx + 16 * i, f->buffers + BUFFER * i, 8);
    set(f, RX + 0x18, COUNT - 1);
    set(f, TCTL, 1 << 1);
    set(f, RCTL, RCTL_ON);
    turn(f);
}

static void create(struct fixture *f, enum e1000_model model)
{
    struct error err = {0};
    memset(f, 0, sizeof(*f));
    vd_machine_init(&f->m, 8 << 20);
    f->clock = clock_create(&err);
    struct e1000_config config = {.model = model,
                                  .pci = f->m.pci,
                                  .slot = SLOT,
                                  .msi = vd_msi(&f->m),
                                  .ram = f->m.ram,
                                  .clock = f->clock,
                                  .loop = f->m.loop,
                                  .log = &f->m.log,
                                  .backend = {.send = backend_send,
                                              .set_receiver = backend_set_receiver,
                                              .resume = backend_resume,
                                              .opaque = f}};
    memcpy(config.mac, mac, 6);
    f->ops = e1000_ops_of(model);
    f->card = e1000_create(&config, &err);
    assert_non_null(f->card);
    vd_boot(&f->m);
    f->bar = vd_bar(&f->m, SLOT, 0);
    f->tx = vd_alloc(&f->m, 16 * COUNT, 128);
    f->rx = vd_alloc(&f->m, 16 * COUNT, 128);
    f->buffers = vd_alloc(&f->m, COUNT * BUFFER, 16);
    f->data = vd_alloc(&f->m, 1 << 17, 16);
    start(f);
}

static void destroy(struct fixture *f)
{
    f->ops->destroy(f->card);
    clock_destroy(f->clock);
    vd_machine_free(&f->m);
}

static void put_tx(struct fixture *f, uint64_t low, uint32_t word2, uint32_t word3)
{
    uint64_t at = f->tx + 16 * f->tx_tail;
    vd_put(&f->m, at, low, 8);
    vd_put(&f->m, at + 8, word2 | (uint64_t)word3 << 32, 8);
    f->tx_tail = (f->tx_tail + 1) % COUNT;
}

static void ring(struct fixture *f)
{
    set(f, TX + 0x18, f->tx_tail);
    turn(f);
}

static bool offer(struct fixture *f, const uint8_t *bytes, size_t size_bytes)
{
    struct iovec iov[2] = {{(void *)(uintptr_t)bytes, 9},
                           {(uint8_t *)(uintptr_t)bytes + 9, size_bytes - 9}};
    return f->receiver.receive(f->receiver.opaque, iov, 2, &(struct net_offload){0});
}

static unsigned be16(const uint8_t *bytes)
{
    return (unsigned)bytes[0] << 8 | bytes[1];
}

/* The one's complement sum of a range and, for TCP over IPv4, of its pseudo-header. */
static unsigned sum_of(const uint8_t *bytes, size_t size, unsigned sum)
{
    for (size_t i = 0; i < size; i++)
        sum += i % 2 ? bytes[i] : (unsigned)bytes[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

/* Ethernet, IPv4 and TCP headers with this payload; no sums. */
static size_t make_tcp(uint8_t *frame, size_t payload)
{
    memset(frame, 0, 54);
    memcpy(frame, mac, 6);
    memset(frame + 6, 0x22, 6);
    frame[12] = 8;
    frame[14] = 0x45;
    frame[16] = (uint8_t)((40 + payload) >> 8);
    frame[17] = (uint8_t)(40 + payload);
    frame[19] = 7; /* id */
    frame[22] = 64;
    frame[23] = 6;
    memcpy(frame + 26, (uint8_t[]){10, 0, 2, 15, 10, 0, 2, 2}, 8);
    frame[35] = 80;
    frame[37] = 99;
    frame[41] = 100; /* sequence number */
    frame[46] = 0x50;
    frame[47] = 0x19; /* ACK, PSH, FIN */
    for (size_t i = 0; i < payload; i++)
        frame[54 + i] = (uint8_t)(i * 7 + (i >> 8));
    return 54 + payload;
}

static unsigned pseudo(const uint8_t *frame, unsigned l4_bytes)
{
    return sum_of(frame + 26, 8, 6 + l4_bytes);
}

static void assert_tcp_sums(const uint8_t *frame, size_t size)
{
    assert_int_equal(sum_of(frame + 14, 20, 0), 0xffff);
    assert_int_equal(sum_of(frame + 34, size - 34, pseudo(frame, (unsigned)size - 34)), 0xffff);
}

static void finish_sums(uint8_t *frame, size_t size)
{
    unsigned ip = ~sum_of(frame + 14, 20, 0);
    unsigned tcp = ~sum_of(frame + 34, size - 34, pseudo(frame, (unsigned)size - 34));
    frame[24] = (uint8_t)(ip >> 8), frame[25] = (uint8_t)ip;
    frame[50] = (uint8_t)(tcp >> 8), frame[51] = (uint8_t)tcp;
}

/* ---- tests; each is run with every model ---- */

static enum e1000_model model_of(void **state)
{
    return *(enum e1000_model *)*state;
}

static void eeprom_and_phy(void **state)
{
    static struct fixture f;
    create(&f, model_of(state));
    bool is_82574 = model_of(state) == E1000_82574L;
    unsigned sum = 0, words[3] = {0};
    for (unsigned i = 0; i < 64; i++) {
        set(&f, EERD, 1 | i << (is_82574 ? 2 : 8));
        uint32_t value = get(&f, EERD);
        assert_true(value & (is_82574 ? 2 : 16));
        sum += value >> 16;
        if (i < 3)
            words[i] = value >> 16;
    }
    assert_int_equal(sum & 0xffff, 0xbaba);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(words[i], mac[2 * i] | mac[2 * i + 1] << 8);
    assert_int_equal(get(&f, RAL), 0x01005452);
    set(&f, MDIC, 2U << 26 | 1 << 21 | 1 << 16);
    assert_int_equal(get(&f, MDIC) & (1U << 28 | 0x24), 1U << 28 | 0x24); /* link, negotiated */
    set(&f, MDIC, 2U << 26 | 2 << 21 | 1 << 16);
    assert_true(get(&f, MDIC) & 1U << 30); /* there is no such transceiver */
    assert_int_equal(get(&f, STATUS) & 3, 3);
    destroy(&f);
}

static unsigned phy(struct fixture *f, unsigned number)
{
    set(f, MDIC, 2U << 26 | 1 << 21 | number << 16);
    return get(f, MDIC) & 0xffff;
}

static void phy_put(struct fixture *f, unsigned number, unsigned value)
{
    set(f, MDIC, 1U << 26 | 1 << 21 | number << 16 | value);
}

/* Reserved bits read as 0: drivers test registers by patterns. */
static void register_bits(void **state)
{
    static const uint32_t registers[][2] = {
        {0x28, 0xffffffff},   {0x2c, 0xffff},       {0x30, 0xffff},       {0x38, 0xffff},
        {0x170, 0xffff},      {0x2800, ~0xfU},      {0x2804, 0xffffffff}, {0x2808, 0xfff80},
        {0x3800, ~0xfU},      {0x3808, 0xfff80},    {0x2900, ~0xfU},      {0x3908, 0xfff80},
        {0x5408, 0xffffffff}, {0x540c, 0x8003ffff}, {0x547c, 0x8003ffff}, {0x5200, 0xffffffff},
    };
    static const uint32_t patterns[] = {0x5a5a5a5a, 0xa5a5a5a5, 0, 0xffffffff};
    static struct fixture f;
    create(&f, model_of(state));
    for (unsigned i = 0; i < sizeof(registers) / sizeof(registers[0]); i++)
        for (unsigned j = 0; j < 4; j++) {
            set(&f, registers[i][0], patterns[j]);
            assert_int_equal(get(&f, registers[i][0]), patterns[j] & registers[i][1]);
        }
    destroy(&f);
}

/* The 82574L's pages have their own registers 16 and above; those below are the same in all. */
static void phy_pages(void **state)
{
    static struct fixture f;
    create(&f, model_of(state));
    unsigned control = phy(&f, 16);
    phy_put(&f, 22, 769);
    phy_put(&f, 16, control ^ 0x40);
    phy_put(&f, 0, 0x4140); /* loops back */
    assert_int_equal(phy(&f, 0), 0x4140);
    phy_put(&f, 22, 0);
    assert_int_equal(phy(&f, 0), 0x4140);
    assert_int_equal(phy(&f, 16), control);
    destroy(&f);
}

static unsigned bit_out(struct fixture *f, unsigned in)
{
    set(f, EECD, 2 | in << 2);
    set(f, EECD, 3 | in << 2);
    unsigned out = get(f, EECD) >> 3 & 1;
    set(f, EECD, 2 | in << 2);
    return out;
}

static void eeprom_by_wires(void **state)
{
    static struct fixture f;
    create(&f, model_of(state));
    set(&f, EECD, 0);
    unsigned command = 6 << 6 | 1, word = 0; /* read word 1 */
    for (int i = 8; i >= 0; i--)
        bit_out(&f, command >> i & 1);
    for (int i = 0; i < 16; i++)
        word = word << 1 | bit_out(&f, 0);
    assert_int_equal(word, mac[2] | mac[3] << 8);
    destroy(&f);
}

static void transmit_legacy(void **state)
{
    static struct fixture f;
    create(&f, model_of(state));
    uint8_t frame[200];
    size_t size = make_tcp(frame, 100);
    ram_write(f.m.ram, f.data, frame, size);
    for (unsigned i = 0; i < 2 * COUNT + 3; i++) { /* around the ring twice, in two pieces */
        put_tx(&f, f.data, 60, 0);
        put_tx(&f, f.data + 60, (uint32_t)(size - 60) | END | REPORT, 0);
        ring(&f);
        assert_int_equal(f.sent_count, i + 1);
        assert_int_equal(f.sent_bytes[i], size);
        assert_memory_equal(f.sent[i], frame, size);
    }
    assert_int_equal(get(&f, GPTC), 2 * COUNT + 3);
    assert_int_equal(get(&f, GPTC), 0); /* read to clear */
    assert_true(get(&f, ICR) & 1);
    destroy(&f);
}

static void put_context(struct fixture *f, uint32_t command, uint32_t payload, unsigned mss)
{
    put_tx(f, (14 | 24 << 8 | 33 << 16) | (uint64_t)(34 | 50 << 8) << 32,
           payload | EXTENDED | command, 54 << 8 | mss << 16);
}

static void transmit_sums(void **state)
{
    static struct fixture f;
    create(&f, model_of(state));
    uint8_t frame[200];
    size_t size = make_tcp(frame, 101);
    unsigned seed = pseudo(frame, (unsigned)size - 34);
    frame[50] = (uint8_t)(seed >> 8), frame[51] = (uint8_t)seed;
    ram_write(f.m.ram, f.data, frame, size);
    put_context(&f, 3U << 24, 0, 0);
    put_tx(&f, f.data, (uint32_t)size | 1 << 20 | END | REPORT | EXTENDED, 3 << 8);
    ring(&f);
    assert_int_equal(f.sent_count, 1);
    assert_tcp_sums(f.sent[0], f.sent_bytes[0]);
    destroy(&f);
}

static void transmit_segments(void **state)
{
    static struct fixture f;
    static uint8_t frame[9000];
    create(&f, model_of(state));
    size_t size = make_tcp(frame, 5001), at = 0;
    unsigned seed = pseudo(frame, 0);
    frame[50] = (uint8_t)(seed >> 8), frame[51] = (uint8_t)seed;
    ram_write(f.m.ram, f.data, frame, size);
    put_context(&f, 7U << 24, 5001, 1448);
    put_tx(&f, f.data, 54 | 1 << 20 | 1 << 26 | EXTENDED, 3 << 8);
    put_tx(&f, f.data + 54, 5001 | 1 << 20 | 1 << 26 | END | REPORT | EXTENDED, 0);
    ring(&f);
    assert_int_equal(f.sent_count, 4);
    for (unsigned i = 0; i < 4; i++) {
        const uint8_t *s = f.sent[i];
        size_t n = f.sent_bytes[i] - 54;
        assert_int_equal(be16(s + 16), n + 40);
        assert_int_equal(be16(s + 18), 7 + i);
        assert_int_equal(be16(s + 40), 100 + at);
        assert_int_equal(s[47], i == 3 ? 0x19 : 0x10);
        assert_memory_equal(s + 54, frame + 54 + at, n);
        assert_tcp_sums(s, f.sent_bytes[i]);
        at += n;
    }
    assert_int_equal(at, 5001);
    destroy(&f);
}

static void receive_and_filters(void **state)
{
    static struct fixture f;
    create(&f, model_of(state));
    uint8_t frame[1600];
    size_t size = make_tcp(frame, 300);
    finish_sums(frame, size);
    set(&f, RXCSUM, 3 << 8);
    assert_true(offer(&f, frame, size));
    uint64_t word = vd_get(&f.m, f.rx + 8, 8);
    assert_int_equal(word & 0xffff, size);
    assert_int_equal(word >> 32 & 0xffff, 0x63); /* done, end, both sums good */
    assert_memory_equal(ram_hva(f.m.ram, f.buffers, size), frame, size);
    assert_int_equal(get(&f, RX + 0x10), 1);
    assert_true(get(&f, ICR) & 1 << 7);
    frame[60] ^= 1;
    assert_true(offer(&f, frame, size));
    assert_int_equal(vd_get(&f.m, f.rx + 16 + 12, 2), 0x2063); /* TCP's sum is wrong */

    frame[5] ^= 1; /* not for this card */
    offer(&f, frame, size);
    assert_int_equal(get(&f, RX + 0x10), 2);
    set(&f, RCTL, RCTL_ON | 1 << 3);
    offer(&f, frame, size);
    assert_int_equal(get(&f, RX + 0x10), 3);
    set(&f, RCTL, RCTL_ON);
    memcpy(frame, (uint8_t[]){1, 0, 0x5e, 0, 0x12, 0x34}, 6);
    offer(&f, frame, size);
    assert_int_equal(get(&f, RX + 0x10), 3);
    unsigned hash = (0x12 | 0x34 << 8) >> 4 & 0xfff;
    set(&f, MTA + 4 * (hash >> 5), 1U << (hash & 31));
    offer(&f, frame, size);
    assert_int_equal(get(&f, RX + 0x10), 4);
    offer(&f, frame, 1600); /* too long without RCTL.LPE */
    assert_int_equal(get(&f, RX + 0x10), 4);
    set(&f, RCTL, RCTL_ON | 1 << 5 | 3 << 16); /* long ones, buffers of 256 bytes */
    offer(&f, frame, 1600);
    assert_int_equal(get(&f, RX + 0x10), 11);
    assert_int_equal(vd_get(&f.m, f.rx + 16 * 10 + 8, 2), 1600 - 6 * 256);
    set(&f, RCTL, 0);
    offer(&f, frame, size);
    assert_int_equal(get(&f, RX + 0x10), 11);
    destroy(&f);
}

static void receive_vlan(void **state)
{
    static struct fixture f;
    create(&f, model_of(state));
    uint8_t frame[100] = {0};
    memcpy(frame, mac, 6);
    memcpy(frame + 12, (uint8_t[]){0x81, 0, 0x20, 0x05, 8, 6}, 6);
    set(&f, CTRL, 1U << 30);
    offer(&f, frame, sizeof(frame));
    uint64_t word = vd_get(&f.m, f.rx + 8, 8);
    assert_int_equal(word & 0xffff, 96);
    assert_int_equal(word >> 48, 0x2005);
    assert_true(word >> 32 & 8);
    assert_int_equal(vd_get(&f.m, f.buffers + 12, 2), 0x0608);
    set(&f, RCTL, RCTL_ON | 1 << 18);
    offer(&f, frame, sizeof(frame));
    assert_int_equal(get(&f, RX + 0x10), 1);
    set(&f, VFTA, 1 << 5);
    offer(&f, frame, sizeof(frame));
    assert_int_equal(get(&f, RX + 0x10), 2);
    destroy(&f);
}

static void no_room(void **state)
{
    static struct fixture f;
    create(&f, model_of(state));
    uint8_t frame[100] = {0};
    memset(frame, 0xff, 6);
    for (unsigned i = 0; i < COUNT - 1; i++)
        assert_true(offer(&f, frame, sizeof(frame)));
    assert_false(offer(&f, frame, sizeof(frame)));
    unsigned before = f.resumed;
    set(&f, RX + 0x18, 3);
    turn(&f);
    assert_int_equal(f.resumed, before + 1);
    assert_true(offer(&f, frame, sizeof(frame)));
    destroy(&f);
}

static void interrupts(void **state)
{
    static struct fixture f;
    create(&f, model_of(state));
    set(&f, ICS, 4);
    assert_false(f.m.intx);
    set(&f, IMS, 4);
    assert_true(f.m.intx);
    assert_int_equal(get(&f, ICR) & 4, 4);
    assert_false(f.m.intx);
    set(&f, ITR, 65535); /* 16 ms */
    set(&f, ICS, 4);
    assert_true(f.m.intx);
    get(&f, ICR);
    set(&f, ICS, 4);
    assert_false(f.m.intx); /* too soon */
    set(&f, ITR, 0);
    assert_true(f.m.intx);
    set(&f, IMC, 4);
    assert_false(f.m.intx);
    destroy(&f);
}

static void malformed(void **state)
{
    static struct fixture f;
    create(&f, model_of(state));
    uint8_t frame[100] = {0};
    memset(frame, 0xff, 6);
    set(&f, TX + 0x18, 0xffff); /* beyond the ring */
    turn(&f);
    set(&f, TX + 0x10, 0xffff);
    set(&f, RX + 0x10, 0xffff);
    turn(&f);
    assert_true(offer(&f, frame, sizeof(frame))); /* dropped */
    set(&f, RX + 8, 0);
    assert_true(offer(&f, frame, sizeof(frame)));
    assert_int_equal(f.sent_count, 0);
    set(&f, TX + 0x10, 0);
    set(&f, TX + 4, 0x12345678); /* a ring in no memory */
    set(&f, TX + 0x18, 5);
    turn(&f);
    assert_int_equal(get(&f, TX + 0x10), 0);
    set(&f, TX + 4, 0);
    set(&f, TX + 0x18, 0);
    /* A frame without end, and headers longer than the frame. */
    for (unsigned i = 0; i < 300; i++) {
        put_tx(&f, f.data, 65535, 0);
        ring(&f);
    }
    put_tx(&f, f.data, 65535 | END, 0);
    put_context(&f, 7U << 24, 5000, 1448);
    put_tx(&f, f.data, 40 | 1 << 20 | 1 << 26 | END | EXTENDED, 3 << 8);
    put_context(&f, 7U << 24, 5000, 0);
    put_tx(&f, f.data, 400 | 1 << 20 | 1 << 26 | END | EXTENDED, 3 << 8);
    ring(&f);
    assert_int_equal(f.sent_count, 0);
    assert_int_equal(get(&f, TX + 0x10), f.tx_tail);
    destroy(&f);
}

static void reset_while_busy(void **state)
{
    static struct fixture f;
    create(&f, model_of(state));
    f.resets = true;
    for (unsigned i = 0; i < 3; i++)
        put_tx(&f, f.data, 60 | END | REPORT, 0);
    ring(&f);
    assert_int_equal(f.sent_count, 1);
    assert_int_equal(get(&f, TCTL), 0);
    assert_int_equal(get(&f, TX + 8), 0);
    assert_int_equal(vd_get(&f.m, f.tx + 12, 1), 0); /* not reported */
    assert_int_equal(get(&f, RAL), 0x01005452);
    f.resets = false;
    f.tx_tail = 0;
    start(&f);
    put_tx(&f, f.data, 60 | END | REPORT, 0);
    ring(&f);
    assert_int_equal(f.sent_count, 2);
    destroy(&f);
}

static void save_in_the_middle(void **state)
{
    static struct fixture f;
    create(&f, model_of(state));
    struct save save = {0};
    struct load load;
    uint32_t version;
    uint8_t frame[100];
    for (unsigned i = 0; i < sizeof(frame); i++)
        frame[i] = (uint8_t)(i + 1);
    ram_write(f.m.ram, f.data, frame, sizeof(frame));
    put_tx(&f, f.data, 40, 0);
    ring(&f); /* the first half is in the card */
    set(&f, IMS, 4);
    set(&f, ICS, 4);
    save_begin(&save, f.ops->name, f.ops->version);
    f.ops->save(f.card, &save);
    save_end(&save);
    f.ops->reset(f.card);
    assert_false(f.m.intx);
    load_init(&load, save.bytes, save.size_bytes);
    assert_true(load_begin(&load, f.ops->name, &version));
    assert_true(f.ops->load(f.card, &load, version) && load_end(&load));
    assert_true(f.m.intx);
    put_tx(&f, f.data + 40, 60 | END | REPORT, 0);
    ring(&f);
    assert_int_equal(f.sent_count, 1);
    assert_memory_equal(f.sent[0], frame, sizeof(frame));
    load_init(&load, save.bytes, save.size_bytes - 9);
    load_begin(&load, f.ops->name, &version);
    assert_false(f.ops->load(f.card, &load, version) && load_end(&load));
    save_free(&save);
    destroy(&f);
}

/* ---- of the 82574L alone ---- */

static void vectors(void **state)
{
    static struct fixture f;
    create(&f, E1000_82574L);
    unsigned at = vd_capability(&f.m, SLOT, PCI_CAPABILITY_MSIX, 0);
    uint64_t table = vd_bar(&f.m, SLOT, vd_config_read(&f.m, SLOT, at + 4, 4) & 7);
    for (unsigned i = 0; i < 5; i++) {
        bus_write(f.m.bus, BUS_MMIO, table + 16 * i, VD_MSI_ADDRESS, 8);
        bus_write(f.m.bus, BUS_MMIO, table + 16 * i + 8, VD_MSI_DATA + i, 4);
        bus_write(f.m.bus, BUS_MMIO, table + 16 * i + 12, 0, 4);
    }
    vd_config_write(&f.m, SLOT, at + 2, 0x8000, 2);
    set(&f, IVAR, 8 | 9 << 8 | 10 << 16); /* RXQ0: 0, TXQ0: 1, other: 2 */
    set(&f, EIAC, 1 << 20 | 1 << 22 | 1 << 24);
    set(&f, IMS, 1 << 20 | 1 << 22 | 1 << 24 | 4);
    uint8_t frame[100] = {0};
    memset(frame, 0xff, 6);
    offer(&f, frame, sizeof(frame));
    assert_int_equal(f.m.msi_count, 1);
    assert_int_equal(f.m.msi_data[0], VD_MSI_DATA);
    put_tx(&f, f.data, 60 | END | REPORT, 0);
    ring(&f);
    assert_int_equal(f.m.msi_data[f.m.msi_count - 1], VD_MSI_DATA + 1);
    set(&f, ICS, 4);
    assert_int_equal(f.m.msi_data[f.m.msi_count - 1], VD_MSI_DATA + 2);
    assert_int_equal(get(&f, ICR) & 0x01500004, 4); /* the vectors' causes are cleared */
    assert_false(f.m.intx);
    destroy(&f);
}

/* Microsoft's example key and one of the results that it publishes for verification. */
static void hashes(void **state)
{
    static const uint8_t key[40] = {0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67,
                                    0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb,
                                    0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
                                    0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa};
    static struct fixture f;
    create(&f, E1000_82574L);
    uint8_t frame[100];
    size_t size = make_tcp(frame, 20);
    memcpy(frame + 26, (uint8_t[]){66, 9, 149, 187, 161, 142, 100, 80}, 8);
    memcpy(frame + 34, (uint8_t[]){2794 >> 8, 2794 & 255, 1766 >> 8, 1766 & 255}, 4);
    for (unsigned i = 0; i < 10; i++) {
        uint32_t word;
        memcpy(&word, key + 4 * i, 4);
        set(&f, RSSRK + 4 * i, word);
    }
    set(&f, MRQC, 1 | 1 << 16 | 1 << 17);
    set(&f, RXCSUM, 1 << 13);
    set(&f, RFCTL, 1 << 15);
    offer(&f, frame, size);
    assert_int_equal(vd_get(&f.m, f.rx + 4, 4), 0x51ccc178);
    assert_int_equal(vd_get(&f.m, f.rx, 4), 1);
    assert_int_equal(vd_get(&f.m, f.rx + 12, 2), size);
    assert_int_equal(vd_get(&f.m, f.rx + 8, 4) & 3, 3);
    /* The same flow to the second queue. */
    uint64_t second = vd_alloc(&f.m, 16 * COUNT, 128);
    vd_put(&f.m, second, f.data, 8);
    set(&f, RX + 0x100, (uint32_t)second);
    set(&f, RX + 0x108, COUNT * 16);
    set(&f, RX + 0x118, 8);
    set(&f, RETA + (0x78 & ~3U), 0x80U << (8 * (0x78 & 3)));
    offer(&f, frame, size);
    assert_int_equal(get(&f, RX + 0x110), 1);
    assert_int_equal(vd_get(&f.m, second, 4), 0x101);
    destroy(&f);
}

static void packet_split(void **state)
{
    static struct fixture f;
    create(&f, E1000_82574L);
    uint8_t frame[1000];
    size_t size = make_tcp(frame, 900);
    vd_put(&f.m, f.rx, f.buffers, 8);
    vd_put(&f.m, f.rx + 8, f.buffers + 4096, 8);
    set(&f, RFCTL, 1 << 15);
    set(&f, 0x2170, 2 | 1 << 8 | 1 << 16 | 1 << 24);
    set(&f, RCTL, RCTL_ON | 1 << 10);
    offer(&f, frame, size);
    assert_int_equal(vd_get(&f.m, f.rx + 8, 4) & 3, 3);
    assert_int_equal(vd_get(&f.m, f.rx + 12, 2), 54);
    assert_int_equal(vd_get(&f.m, f.rx + 16, 2), 54 | 1 << 15);
    assert_int_equal(vd_get(&f.m, f.rx + 18, 2), 900);
    assert_memory_equal(ram_hva(f.m.ram, f.buffers, 54), frame, 54);
    assert_memory_equal(ram_hva(f.m.ram, f.buffers + 4096, 900), frame + 54, 900);
    assert_int_equal(get(&f, RX + 0x10), 2);
    destroy(&f);
}

int main(void)
{
    static enum e1000_model models[] = {E1000_82540EM, E1000_82574L};
    int failed = 0;
    for (unsigned i = 0; i < 2; i++) {
        const struct CMUnitTest tests[] = {
            cmocka_unit_test_prestate(eeprom_and_phy, &models[i]),
            cmocka_unit_test_prestate(register_bits, &models[i]),
            cmocka_unit_test_prestate(transmit_legacy, &models[i]),
            cmocka_unit_test_prestate(transmit_sums, &models[i]),
            cmocka_unit_test_prestate(transmit_segments, &models[i]),
            cmocka_unit_test_prestate(receive_and_filters, &models[i]),
            cmocka_unit_test_prestate(receive_vlan, &models[i]),
            cmocka_unit_test_prestate(no_room, &models[i]),
            cmocka_unit_test_prestate(interrupts, &models[i]),
            cmocka_unit_test_prestate(malformed, &models[i]),
            cmocka_unit_test_prestate(reset_while_busy, &models[i]),
            cmocka_unit_test_prestate(save_in_the_middle, &models[i]),
        };
        failed += cmocka_run_group_tests_name(i ? "82574L" : "82540EM", tests, NULL, NULL);
    }
    const struct CMUnitTest others[] = {
        cmocka_unit_test_prestate(eeprom_by_wires, &models[0]),
        cmocka_unit_test_prestate(phy_pages, &models[1]),
        cmocka_unit_test(vectors),
        cmocka_unit_test(hashes),
        cmocka_unit_test(packet_split),
    };
    return failed + cmocka_run_group_tests_name("one model", others, NULL, NULL);
}
