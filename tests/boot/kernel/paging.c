/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Who may access a page (SDM 3A 4.6, 4.7, 4.8): random entries of the last two tables, random
 * controls, and an access of each kind from level 0 and level 3, compared with what the manual
 * says: whether it faults, the error code, CR2, accessed and dirty bits. Before some of them the
 * page is read once, so that the TLB has it.
 *
 * On a fault the page's own entry must be as it was; an accessed bit above it may be set or not.
 */
#include "kernel.h"

#define BIT(n)       (UINT64_C(1) << (n))
#define ENTRY_P      BIT(0)
#define ENTRY_W      BIT(1)
#define ENTRY_U      BIT(2)
#define ENTRY_A      BIT(5)
#define ENTRY_D      BIT(6)
#define ENTRY_PS     BIT(7)
#define ENTRY_BIT_13 BIT(13) /* reserved in an entry of 2 MiB */
#define ENTRY_BIT_51 BIT(51) /* an address that no processor here has */
#define ENTRY_NX     BIT(63)
#define KEY_SHIFT    59

enum {
    ERROR_P = 1,
    ERROR_W = 2,
    ERROR_U = 4,
    ERROR_RESERVED = 8,
    ERROR_FETCH = 16,
    ERROR_KEY = 32
};
enum { CASES = 20000, FRAME_GPA = 32 << 20, STACK_BYTES = 16384 };
enum { USER_DATA = 0x20 | 3, USER_CODE = 0x28 | 3, TASK = 0x30 };
#define MSR_EFER UINT32_C(0xc0000080)

#define TEST_VA UINT64_C(0xffff900000000000)
#define STUB_VA UINT64_C(0x0000008000000000)

#define CR0_WP     BIT(16)
#define CR4_SMEP   BIT(20)
#define CR4_SMAP   BIT(21)
#define CR4_PKE    BIT(22)
#define EFER_NXE   BIT(11)
#define RFLAGS_AC  BIT(18)
#define RFLAGS_ONE BIT(1)

enum kind { READ, WRITE, FETCH };

struct access {
    uint64_t pde, pte;
    enum kind kind;
    bool is_user, wp, smep, smap, nxe, pke, ac, is_second;
    unsigned pkru;
};

struct outcome {
    bool faults;
    uint64_t error, pde, pte;
};

static _Alignas(4096) uint64_t pml4[512], pdpt[512], directory[512], table[512];
static _Alignas(4096) uint64_t stub_pdpt[512], stub_directory[512], stub_table[512];
static _Alignas(16) uint8_t stack[STACK_BYTES];
static uint64_t gdt[8];
static struct __attribute__((packed)) {
    uint32_t zero;
    uint64_t rsp[3];
    uint64_t rest[9];
    uint16_t zero2, io_map;
} task;

/* Set by the handlers, before they go back to where run_access() was called. */
static volatile uint64_t fault_error, fault_address, fault_rip;
static volatile bool has_faulted;

uint64_t paging_saved_rsp;
extern const char paging_stubs[], paging_stub_write[], paging_stub_fetch[], paging_back[];
/* To `rip` at the level of CS, with RDI the address; RFLAGS as given. */
void paging_go(uint64_t rip, uint64_t cs, uint64_t ss, uint64_t rflags, uint64_t address);

__asm__(".pushsection .text\n"
        "    .balign 4096\n"
        "paging_stubs: mov (%rdi), %al; ud2\n"
        "paging_stub_write: movb $0x0f, (%rdi); ud2\n"
        "paging_stub_fetch: jmp *%rdi\n"
        "    .balign 4096\n"
        "paging_go:\n"
        "    push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "    mov %rsp, paging_saved_rsp(%rip)\n"
        "    push %rdx; pushq paging_saved_rsp(%rip); push %rcx; push %rsi; push %rdi\n"
        "    mov %r8, %rdi\n"
        "    iretq\n"
        "paging_back:\n"
        "    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "    ret\n"
        "    .popsection");

static uint64_t address_of(const void *pointer)
{
    return (uint64_t)(uintptr_t)pointer;
}

static void go_back(struct frame *frame)
{
    frame->rip = address_of(paging_back);
    frame->cs = 0x08;
    frame->ss = 0;
    frame->rsp = paging_saved_rsp;
    frame->rflags = RFLAGS_ONE;
}

static void on_page_fault(struct frame *frame)
{
    uint64_t address;
    __asm__ volatile("mov %%cr2, %0" : "=r"(address));
    has_faulted = true;
    fault_error = frame->error_code;
    fault_address = address;
    fault_rip = frame->rip;
    go_back(frame);
}

/* The UD2 behind an access, or in the page itself. */
static void on_undefined(struct frame *frame)
{
    fault_rip = frame->rip;
    go_back(frame);
}

/* ---- what there is to choose from ---- */

static uint64_t random_state = 0x2545f4914f6cdd1d;

static uint64_t random_bits(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static bool has_keys(void)
{
    return cpuid(7, 0).ecx >> 3 & 1;
}

/* Most entries are present and permit something, or few accesses would come far. */
static uint64_t random_entry(bool is_leaf)
{
    uint64_t r = random_bits();
    uint64_t entry = r & (ENTRY_W | ENTRY_U | ENTRY_A);
    entry |= r >> 8 & 7 ? ENTRY_P : 0;
    entry |= r >> 16 & 3 ? 0 : ENTRY_NX;
    entry |= r >> 24 & 15 ? 0 : ENTRY_BIT_51;
    if (is_leaf)
        entry |= (r & ENTRY_D) | (r >> 32 & 15) << KEY_SHIFT;
    return entry;
}

static struct access random_access(void)
{
    uint64_t r = random_bits();
    bool is_large = r >> 40 & 1;
    struct access a = {
        .pde = random_entry(is_large) | (is_large ? ENTRY_PS : 0),
        .pte = random_entry(true),
        .kind = r % 3,
        .is_user = r >> 8 & 1,
        .wp = r >> 9 & 1,
        .smep = r >> 10 & 1,
        .smap = r >> 11 & 1,
        .nxe = r >> 12 & 3,
        .pke = has_keys() && (r >> 14 & 1),
        .ac = r >> 15 & 1,
        .is_second = r >> 16 & 1,
        .pkru = (unsigned)random_bits(),
    };
    if (is_large && !(r >> 20 & 15))
        a.pde |= ENTRY_BIT_13;
    return a;
}

/* ---- what the manual says ---- */

static bool is_reserved(const struct access *a, uint64_t entry)
{
    return (entry & ENTRY_BIT_51) || ((entry & ENTRY_NX) && !a->nxe) ||
           ((entry & ENTRY_PS) && (entry & ENTRY_BIT_13));
}

/* 4.6.2. */
static bool is_denied_by_key(const struct access *a, uint64_t leaf)
{
    unsigned rights = a->pkru >> 2 * (leaf >> KEY_SHIFT & 15) & 3;
    return a->pke && a->kind != FETCH &&
           ((rights & 1) || (a->kind == WRITE && (rights & 2) && (a->is_user || a->wp)));
}

/* 4.6.1, of a page with these rights at all levels. */
static bool is_denied(const struct access *a, bool is_user_page, bool is_writable, bool is_nx)
{
    if (a->is_user && !is_user_page)
        return true;
    if (a->kind == FETCH)
        return is_nx || (!a->is_user && is_user_page && a->smep);
    if (!a->is_user && is_user_page && a->smap && !a->ac)
        return true;
    return a->kind == WRITE && !is_writable && (a->is_user || a->wp);
}

static struct outcome fault(const struct access *a, uint64_t error)
{
    error |= a->kind == WRITE ? ERROR_W : 0;
    error |= a->is_user ? ERROR_U : 0;
    error |= a->kind == FETCH && (a->nxe || a->smep) ? ERROR_FETCH : 0;
    return (struct outcome){true, error, a->pde, a->pte};
}

static struct outcome expected(const struct access *a)
{
    bool is_large = a->pde & ENTRY_PS;
    if (!(a->pde & ENTRY_P))
        return fault(a, 0);
    if (is_reserved(a, a->pde))
        return fault(a, ERROR_P | ERROR_RESERVED);
    if (!is_large && !(a->pte & ENTRY_P))
        return fault(a, 0);
    if (!is_large && is_reserved(a, a->pte))
        return fault(a, ERROR_P | ERROR_RESERVED);
    uint64_t all = is_large ? a->pde : a->pde & a->pte;
    uint64_t any = is_large ? a->pde : a->pde | a->pte;
    bool by_key = (all & ENTRY_U) && is_denied_by_key(a, is_large ? a->pde : a->pte);
    if (is_denied(a, all & ENTRY_U, all & ENTRY_W, any & ENTRY_NX) || by_key)
        return fault(a, ERROR_P | (by_key ? ERROR_KEY : 0));
    struct outcome done = {false, 0, a->pde | ENTRY_A, a->pte};
    uint64_t *leaf = is_large ? &done.pde : &done.pte;
    *leaf |= ENTRY_A | (a->kind == WRITE ? ENTRY_D : 0);
    return done;
}

/* ---- doing it ---- */

static void set_controls(const struct access *a)
{
    uint64_t cr0, cr4;
    __asm__ volatile("mov %%cr0, %0; mov %%cr4, %1" : "=r"(cr0), "=r"(cr4));
    cr0 = a->wp ? cr0 | CR0_WP : cr0 & ~CR0_WP;
    cr4 &= ~(CR4_SMEP | CR4_SMAP | CR4_PKE);
    cr4 |= (a->smep ? CR4_SMEP : 0) | (a->smap ? CR4_SMAP : 0) | (a->pke ? CR4_PKE : 0);
    __asm__ volatile("mov %0, %%cr0; mov %1, %%cr4" : : "r"(cr0), "r"(cr4) : "memory");
    uint64_t efer = rdmsr(MSR_EFER);
    wrmsr(MSR_EFER, a->nxe ? efer | EFER_NXE : efer & ~EFER_NXE);
    if (a->pke)
        __asm__ volatile("wrpkru" : : "a"(a->pkru), "c"(0), "d"(0));
}

static void run_access(const struct access *a)
{
    static const char *const stubs[] = {paging_stubs, paging_stub_write, paging_stub_fetch};
    uint64_t rip = address_of(stubs[a->kind]);
    uint64_t rflags = RFLAGS_ONE | (a->ac ? RFLAGS_AC : 0);
    has_faulted = false;
    if (a->is_user)
        paging_go(rip - address_of(paging_stubs) + STUB_VA, USER_CODE, USER_DATA, rflags, TEST_VA);
    else
        paging_go(rip, 0x08, 0, rflags, TEST_VA);
}

/* The entries without what they point to, which is always the same. */
static uint64_t entry_bits(uint64_t entry)
{
    const uint64_t address = entry & ENTRY_PS ? 0xfffffe00000 : 0xffffffff000;
    return entry & ~address;
}

static struct outcome run(const struct access *a)
{
    bool is_large = a->pde & ENTRY_PS;
    directory[0] = a->pde | (is_large ? (uint64_t)FRAME_GPA : address_of(table));
    table[0] = a->pte | (uint64_t)FRAME_GPA;
    __asm__ volatile("invlpg (%0)" : : "r"(TEST_VA) : "memory");
    set_controls(a);
    if (a->is_second) {
        struct access first = *a;
        first.kind = READ;
        first.is_user = false;
        first.ac = true;
        run_access(&first);
    }
    run_access(a);
    return (struct outcome){has_faulted, has_faulted ? fault_error : 0, entry_bits(directory[0]),
                            entry_bits(table[0])};
}

/* The read before leaves its own marks. */
static struct access behind_first(const struct access *a)
{
    struct access first = *a, second = *a;
    first.kind = READ;
    first.is_user = false;
    first.ac = true;
    struct outcome o = expected(&first);
    second.pde = o.pde;
    second.pte = o.pte;
    return second;
}

static bool is_as_expected(const struct access *a)
{
    struct access b = a->is_second ? behind_first(a) : *a;
    struct outcome wanted = expected(&b), got = run(a);
    uint64_t ignored = wanted.faults ? ENTRY_A : 0;
    bool ok = got.faults == wanted.faults && got.error == wanted.error && got.pte == wanted.pte &&
              (got.pde | ignored) == (wanted.pde | ignored) &&
              (!wanted.faults || fault_address == TEST_VA);
    if (ok)
        return true;
    const uint64_t told[] = {a->pde,  a->pte,        a->kind,      a->is_user, a->wp,
                             a->smep, a->smap,       a->nxe,       a->pke,     a->ac,
                             a->pkru, a->is_second,  got.faults,   got.error,  got.pde,
                             got.pte, wanted.faults, wanted.error, wanted.pde, wanted.pte};
    for (unsigned i = 0; i < sizeof(told) / sizeof(told[0]); i++) {
        print(i ? " " : "paging: ");
        print_hex(told[i]);
    }
    print("\n");
    return false;
}

/* ---- tables of its own ---- */

static void make_segments(void)
{
    uint64_t base = address_of(&task);
    gdt[1] = 0x00af9b000000ffff;
    gdt[2] = 0x00cf9b000000ffff;
    gdt[3] = 0x00cf93000000ffff;
    gdt[USER_DATA / 8] = 0x00cff3000000ffff;
    gdt[USER_CODE / 8] = 0x00affb000000ffff;
    gdt[TASK / 8] = (sizeof(task) - 1) | (base & 0xffffff) << 16 | UINT64_C(0x89) << 40 |
                    (base >> 24 & 0xff) << 56;
    gdt[TASK / 8 + 1] = base >> 32;
    task.rsp[0] = address_of(stack) + sizeof(stack);
    task.io_map = sizeof(task);
    struct __attribute__((packed)) {
        uint16_t limit;
        uint64_t base;
    } pointer = {sizeof(gdt) - 1, address_of(gdt)};
    __asm__ volatile("lgdt %0; ltr %w1" : : "m"(pointer), "r"(TASK) : "memory");
}

static void make_tables(uint64_t cr3)
{
    const uint64_t *old = (const uint64_t *)(uintptr_t)(cr3 & ~UINT64_C(0xfff));
    const uint64_t all = ENTRY_P | ENTRY_W | ENTRY_U;
    pml4[0] = old[0];
    pml4[TEST_VA >> 39 & 511] = address_of(pdpt) | all;
    pdpt[TEST_VA >> 30 & 511] = address_of(directory) | all;
    pml4[STUB_VA >> 39 & 511] = address_of(stub_pdpt) | all;
    stub_pdpt[0] = address_of(stub_directory) | all;
    stub_directory[0] = address_of(stub_table) | all;
    stub_table[0] = address_of(paging_stubs) | ENTRY_P | ENTRY_U;
}

void test_paging(void)
{
    uint64_t cr0, cr3, cr4, efer = rdmsr(MSR_EFER);
    __asm__ volatile("mov %%cr0, %0; mov %%cr3, %1; mov %%cr4, %2"
                     : "=r"(cr0), "=r"(cr3), "=r"(cr4));
    *(volatile uint16_t *)(uintptr_t)FRAME_GPA = 0x0b0f; /* UD2 */
    make_segments();
    make_tables(cr3);
    handle(6, on_undefined);
    handle(14, on_page_fault);
    __asm__ volatile("mov %0, %%cr3" : : "r"(address_of(pml4)) : "memory");
    unsigned wrong = 0, faults = 0;
    for (unsigned i = 0; i < CASES && wrong < 10; i++) {
        const struct access a = random_access();
        wrong += !is_as_expected(&a);
        faults += has_faulted;
    }
    wrmsr(MSR_EFER, efer);
    __asm__ volatile("mov %0, %%cr4; mov %1, %%cr3; mov %2, %%cr0"
                     :
                     : "r"(cr4), "r"(cr3), "r"(cr0)
                     : "memory");
    handle(6, NULL);
    handle(14, NULL);
    check_equal(wrong, 0, "random accesses to random pages do what the manual says");
    check(faults > CASES / 10 && faults < CASES * 9 / 10, "many of them fault, and many do not");
}
