// Runs kernels that were compiled for the CPU (shim_kernel.h): block after block, the threads of a block as fibers, each
// until it meets the others at a barrier or a warp exchange. Gives out memory between guard pages.
#include "shim_kernel.h"
#undef __noinline__
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#if !defined(__x86_64__) || defined(SHIM_UCONTEXT)
#include <ucontext.h>
#endif
#undef threadIdx
#undef blockIdx

enum State { READY, WARP, BARRIER, DONE };
enum Status { FINE = 0, ILLEGAL_ADDRESS = 700, LAUNCH_FAILURE = 719 };  // as CUDA numbers them
constexpr unsigned MOST_THREADS = 1024;
constexpr size_t STACK = 128 << 10, PAGE = 4096, MOST_DYNAMIC = 228 << 10;

struct Copy { void *to; const void *from; unsigned bytes, group; };  // which goes on by itself; zeros where `from` is null
constexpr unsigned MOST_COPIES = 64;
struct Fiber {
    ShimThread thread;  // first: shim_thread points to it
    unsigned mask, live;
    int state, line, op, next, held;
    char *stack;
#if defined(__x86_64__) && !defined(SHIM_UCONTEXT)
    void *sp;
#else
    ucontext_t context;
#endif
    unsigned copying, group;
    Copy copies[MOST_COPIES];
    alignas(16) unsigned char values[2][32];  // given to others; two, as fast lanes go on while slow ones still read
};
static Fiber fibers[MOST_THREADS];
static char *stacks, *free_stacks[MOST_THREADS];
static unsigned free_count, stack_count;
static void (*body)(void **);
static void **body_args;
static char *message;
static size_t message_bytes;
static int status;
static sigjmp_buf back;
static volatile sig_atomic_t running;

extern "C" {
ShimThread *shim_thread;
uint3 shim_block, shim_block_size, shim_grid_size;
char *shim_dynamic;
}

static void fail(int code, const Fiber &f, const char *format, ...) {
    if (status) return;
    status = code;
    char what[200];
    va_list rest;
    va_start(rest, format);
    vsnprintf(what, sizeof what, format, rest);
    va_end(rest);
    const uint3 b = shim_block, t = f.thread.index;
    snprintf(message, message_bytes, "%s: block (%u, %u, %u), thread (%u, %u, %u), at or after line %d", what, b.x, b.y,
             b.z, t.x, t.y, t.z, f.line);
}

// ------------------------------------------------------------------------------------------------------ fibers
#if defined(__x86_64__) && !defined(SHIM_UCONTEXT)
static void *scheduler;
extern "C" void shim_switch(void **save, void *to);
asm(".text\n.p2align 4\n.hidden shim_switch\n.globl shim_switch\n.type shim_switch,@function\nshim_switch:\n"
    " pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n movq %rsp,(%rdi)\n movq %rsi,%rsp\n"
    " popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret\n.size shim_switch,.-shim_switch\n");
static void leave(Fiber &f) { shim_switch(&f.sp, scheduler); }
static void enter(Fiber &f) { shim_switch(&scheduler, f.sp); }
static void begin(Fiber &f, void (*entry)()) {
    void **top = (void **)(f.stack + STACK);
    *--top = nullptr;
    *--top = (void *)entry;
    f.sp = top - 6;
}
#else
static ucontext_t scheduler;
static void leave(Fiber &f) { swapcontext(&f.context, &scheduler); }
static void enter(Fiber &f) { swapcontext(&scheduler, &f.context); }
static void begin(Fiber &f, void (*entry)()) {
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack;
    f.context.uc_stack.ss_size = STACK;
    f.context.uc_link = nullptr;
    makecontext(&f.context, entry, 0);
}
#endif

static Fiber &current() { return *(Fiber *)shim_thread; }
static void run_thread() {
    body(body_args);
    shim_copies_end(~0u);
    current().state = DONE;
    leave(current());
    __builtin_unreachable();
}
static void resume(Fiber &f) {
    if (!f.stack) {
        if (!free_count) free_stacks[free_count++] = stacks + STACK * stack_count++;
        f.stack = free_stacks[--free_count];
        begin(f, run_thread);
    }
    shim_thread = &f.thread;
    enter(f);
    if (f.state == DONE) {
        free_stacks[free_count++] = f.stack;
        f.stack = nullptr;
    }
}

extern "C" void shim_barrier(int line) {
    Fiber &f = current();
    f.line = line;
    f.state = BARRIER;
    leave(f);
}
extern "C" void shim_exchange(unsigned mask, const void *value, unsigned bytes, int op, int line) {
    Fiber &f = current();
    memcpy(f.values[f.next], value, bytes);
    f.mask = mask;
    f.op = op;
    f.line = line;
    f.state = WARP;
    leave(f);
}
extern "C" bool shim_lane(void *value, unsigned bytes, unsigned lane) {
    Fiber &f = current(), &other = (&f - f.thread.lane)[lane & 31];
    if (lane > 31 || !(f.mask >> lane & 1)) {
        fail(LAUNCH_FAILURE, f, "a warp exchange reads lane %u, which its mask %#x leaves out", lane, f.mask);
    } else if (!(f.live >> lane & 1)) {
        fail(LAUNCH_FAILURE, f, "a warp exchange reads lane %u, which has ended", lane);
    } else {
        memcpy(value, other.values[other.held], bytes);
        return true;
    }
    return false;
}

// Lets those lanes go on whose whole mask has come to the same exchange.
static bool release(Fiber *warp, unsigned count) {
    bool any = false;
    for (unsigned i = 0; i < count; i++) {
        Fiber &f = warp[i];
        if (f.state != WARP) continue;
        if (!(f.mask >> i & 1)) {
            fail(LAUNCH_FAILURE, f, "a lane takes part in a warp exchange whose mask %#x leaves it out", f.mask);
            return false;
        }
        const unsigned mask = f.mask;
        unsigned live = 0;
        bool all = true;
        for (unsigned j = 0; j < count; j++) {
            const Fiber &g = warp[j];
            if (!(mask >> j & 1) || g.state == DONE) continue;
            live |= 1u << j;
            all = all && g.state == WARP && g.mask == mask && g.op == f.op && g.line == f.line;
        }
        if (!all) continue;
        any = true;
        for (unsigned j = 0; j < count; j++) {
            Fiber &g = warp[j];
            if (!(live >> j & 1)) continue;
            g.live = live;
            g.state = READY;
            g.held = g.next;
            g.next ^= 1;
        }
    }
    return any;
}

// ------------------------------------------------------------------------------------------------------ orders
static int order;  // 0: natural, 1: reversed, 2: shuffled
static unsigned random_state;
static unsigned draw(unsigned below) {
    random_state = random_state * 1664525u + 1013904223u;
    return (unsigned)((unsigned long long)random_state * below >> 32);
}
static void arrange(unsigned *ids, unsigned count) {
    for (unsigned i = 0; i < count; i++) ids[i] = order == 1 ? count - 1 - i : i;
    if (order != 2) return;
    for (unsigned i = count; i > 1; i--) {
        const unsigned j = draw(i), swapped = ids[i - 1];
        ids[i - 1] = ids[j];
        ids[j] = swapped;
    }
}
// A copy that goes on by itself is made when it is waited for, or at once, or either.
static void copy(const Copy &c) {
    if (c.from) memcpy(c.to, c.from, c.bytes);
    else memset(c.to, 0, c.bytes);
}
extern "C" void shim_copy(void *to, const void *from, unsigned bytes) {
    Fiber &f = current();
    const Copy made = {to, from, bytes, f.group};
    if (order == 1 || (order == 2 && draw(2))) copy(made);
    else if (f.copying < MOST_COPIES) f.copies[f.copying++] = made;
    else fail(LAUNCH_FAILURE, f, "more than %u copies are on their way", MOST_COPIES);
}
extern "C" void shim_copies_group() { current().group++; }
// All of them, or (`but` is not ~0) those of all groups but so many last ones.
extern "C" void shim_copies_end(unsigned but) {
    Fiber &f = current();
    unsigned left = 0;
    for (unsigned k = 0; k < f.copying; k++) {
        if (but == ~0u || f.copies[k].group + but < f.group) copy(f.copies[k]);
        else f.copies[left++] = f.copies[k];
    }
    f.copying = left;
}
static unsigned long long common(unsigned long long a, unsigned long long b) { return b ? common(b, a % b) : a; }

static void run_block(unsigned threads) {
    const unsigned warps = (threads + 31) / 32;
    const uint3 size = shim_block_size;
    unsigned warp_ids[32], lanes[32];
    for (unsigned t = 0; t < threads; t++) {
        Fiber &f = fibers[t];
        f.thread = {{t % size.x, t / size.x % size.y, t / (size.x * size.y)}, t & 31};
        f.stack = nullptr;
        f.state = READY;
        f.line = f.next = f.held = 0;
        f.copying = f.group = 0;
    }
    while (!status) {
        arrange(warp_ids, warps);
        for (unsigned k = 0; k < warps && !status; k++) {
            Fiber *warp = fibers + warp_ids[k] * 32;
            const unsigned left = threads - warp_ids[k] * 32, count = left < 32 ? left : 32;
            do {
                arrange(lanes, count);
                for (unsigned i = 0; i < count && !status; i++)
                    if (warp[lanes[i]].state == READY) resume(warp[lanes[i]]);
            } while (!status && release(warp, count));
        }
        if (status) return;
        const Fiber *waits = nullptr, *ended = nullptr;
        for (unsigned t = 0; t < threads; t++) {
            const Fiber &f = fibers[t];
            if (f.state == WARP) fail(LAUNCH_FAILURE, f, "a warp exchange that not all lanes of its mask come to");
            if (f.state == DONE) ended = &f;
            if (f.state != BARRIER) continue;
            if (waits && waits->line != f.line) fail(LAUNCH_FAILURE, f, "the threads of a block met at different barriers");
            waits = &f;
        }
        if (!waits) return;
        if (ended) fail(LAUNCH_FAILURE, *ended, "a thread ended before a barrier at which others wait");
        for (unsigned t = 0; t < threads; t++) fibers[t].state = READY;
    }
}

// ------------------------------------------------------------------------------------------------------ memory
// [guard page][0xA5 ... the bytes asked for, then less than 16 of 0xA5][guard page], or with the bytes right behind the
// first guard page (`low`), so that what reads before them is found, too
constexpr unsigned char PATTERN = 0xA5;
static char *pages_of(char *ptr, size_t bytes, size_t *inner) {
    *inner = bytes ? (bytes + PAGE - 1) / PAGE * PAGE : PAGE;
    if (bytes && (uintptr_t)ptr % PAGE == 0) return ptr;
    return (char *)(((uintptr_t)ptr + (bytes + 15) / 16 * 16) - *inner);
}
extern "C" char *shim_allocate(size_t bytes, int low) {
    const size_t inner = bytes ? (bytes + PAGE - 1) / PAGE * PAGE : PAGE;
    char *map = (char *)mmap(nullptr, inner + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) return nullptr;
    if (mprotect(map + PAGE, inner, PROT_READ | PROT_WRITE)) return nullptr;
    memset(map + PAGE, PATTERN, inner);
    return bytes && low ? map + PAGE : map + PAGE + inner - (bytes + 15) / 16 * 16;
}
// 0, or 1 where something was written before the memory, 2 where it was written after it.
extern "C" int shim_damaged(char *ptr, size_t bytes) {
    size_t inner;
    char *start = pages_of(ptr, bytes, &inner);
    for (char *p = start; p < ptr; p++) if ((unsigned char)*p != PATTERN) return 1;
    for (char *p = ptr + bytes; p < start + inner; p++) if ((unsigned char)*p != PATTERN) return 2;
    return 0;
}
// Its addresses stay taken for a while, so that who still uses them is found.
extern "C" void shim_free(char *ptr, size_t bytes) {
    static struct { char *map; size_t bytes; } freed[2048];
    static unsigned count;
    size_t inner;
    char *map = pages_of(ptr, bytes, &inner) - PAGE;
    mmap(map, inner + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    auto &place = freed[count++ % 2048];
    if (place.map) munmap(place.map, place.bytes);
    place = {map, inner + 2 * PAGE};
}

// ------------------------------------------------------------------------------------------------------ launches
static uint64_t tag;
static struct sigaction old_segv, old_bus, old_ill;
static void on_fault(int number, siginfo_t *info, void *) {
    if (!running) {  // not a kernel's: as if this handler were not there
        sigaction(number, number == SIGSEGV ? &old_segv : number == SIGBUS ? &old_bus : &old_ill, nullptr);
        return;
    }
    running = 0;
    if (number == SIGILL) fail(ILLEGAL_ADDRESS, current(), "an index beyond a shared or local array, or a misaligned address");
    else fail(ILLEGAL_ADDRESS, current(), "an illegal memory access at %#llx", (unsigned long long)info->si_addr | tag);
    siglongjmp(back, 1);
}

static void run_grid(const ShimKernel *kernel, unsigned threads, unsigned shared) {
    const uint3 g = shim_grid_size;
    const unsigned long long blocks = (unsigned long long)g.x * g.y * g.z;
    unsigned long long step = 1, first = 0;
    if (order == 2 && blocks > 2) {  // a step that comes by every block
        first = draw((unsigned)(blocks < ~0u ? blocks : ~0u));
        do step = 1 + draw((unsigned)(blocks < ~0u ? blocks - 1 : ~0u)); while (common(step, blocks) != 1);
    }
    for (unsigned long long k = 0; k < blocks && !status; k++) {
        const unsigned long long b = order == 1 ? blocks - 1 - k : (unsigned long long)((unsigned __int128)k * step % blocks + first) % blocks;
        shim_block = {(unsigned)(b % g.x), (unsigned)(b / g.x % g.y), (unsigned)(b / g.x / g.y)};
        memset(kernel->shared_begin, 0xFF, kernel->shared_end - kernel->shared_begin);  // not a number, in any format
        memset(shim_dynamic, 0xFF, shared);
        run_block(threads);
    }
}

// size: grid x, y, z, block x, y, z, bytes of dynamic shared memory. Pointers are device addresses: `tags` and an address.
// Returns a status and writes what happened to `text`.
extern "C" int shim_launch(const ShimKernel *kernel, const unsigned *size, void **params, int how, unsigned seed,
                           uint64_t tags, char *text, size_t text_bytes) {
    static char *dynamic;
    if (!stacks) {
        stacks = (char *)mmap(nullptr, STACK * MOST_THREADS, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        dynamic = (char *)mmap(nullptr, MOST_DYNAMIC + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        mprotect(dynamic + MOST_DYNAMIC, PAGE, PROT_NONE);
    }
    static uint64_t values[512];  // parameters, of at most 4096 bytes
    void *args[512];
    for (unsigned k = 0, at = 0; k < kernel->count; k++) {
        const unsigned words = (kernel->sizes[k] + 7u) / 8;
        memcpy(values + at, params[k], kernel->sizes[k]);
        for (unsigned w = at; w < at + words; w++)
            if (words > 1 ? tags && values[w] >> 52 == tags >> 52 : kernel->pointers[k] && values[w]) values[w] ^= tags;
        args[k] = values + at;
        at += words;
    }
    body = kernel->body;
    body_args = args;
    shim_grid_size = {size[0], size[1], size[2]};
    shim_block_size = {size[3], size[4], size[5]};
    shim_dynamic = dynamic + MOST_DYNAMIC - (size[6] + 15) / 16 * 16;
    order = how;
    random_state = seed * 2654435761u + 1;
    tag = tags;
    status = FINE;
    message = text;
    message_bytes = text_bytes;
    free_count = stack_count = 0;

    stack_t alternative;
    sigaltstack(nullptr, &alternative);
    if (alternative.ss_flags & SS_DISABLE) {  // one for this thread, for as long as it lives
        alternative = {malloc(1 << 16), 0, 1 << 16};
        sigaltstack(&alternative, nullptr);
    }
    struct sigaction mine = {};
    mine.sa_sigaction = on_fault;
    mine.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigaction(SIGSEGV, &mine, &old_segv);
    sigaction(SIGBUS, &mine, &old_bus);
    sigaction(SIGILL, &mine, &old_ill);
    if (!sigsetjmp(back, 1)) {
        running = 1;
        run_grid(kernel, size[3] * size[4] * size[5], size[6]);
    }
    running = 0;
    sigaction(SIGSEGV, &old_segv, nullptr);
    sigaction(SIGBUS, &old_bus, nullptr);
    sigaction(SIGILL, &old_ill, nullptr);
    return status;
}
