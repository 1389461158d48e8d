; kiln's thread pool and the context's allocation functions, for x86-64 Linux.
;
; A parallel region is cut into chunks. @next holds the generation of the region in its high half and the number of
; chunks not yet claimed in its low half; a chunk is claimed by a compare-and-swap that takes one from it. The job's
; description is read only after a claim succeeded, so a worker that wakes late can neither run a chunk of a later
; region by mistake nor one twice. The caller works too and never waits for a worker that has not claimed anything:
; a worker that the system does not schedule costs nothing.

@next = internal global i64 0, align 64
@pad0 = internal global [14 x i32] zeroinitializer
@done = internal global i32 0, align 64
@pad1 = internal global [15 x i32] zeroinitializer
@gen = internal global i32 0, align 64
@pad2 = internal global [15 x i32] zeroinitializer
@sleepers = internal global i32 0, align 64
@pad3 = internal global [15 x i32] zeroinitializer
@busy = internal global i32 0, align 64
@active = internal global i32 0
@job_body = internal global ptr null
@job_ctx = internal global ptr null
@job_closure = internal global ptr null
@job_n = internal global i64 0
@job_chunk = internal global i64 0

declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_detach(i64)
declare i64 @syscall(i64, ...)
declare ptr @aligned_alloc(i64, i64)
declare void @free(ptr)
declare void @llvm.x86.sse2.pause()
declare void @llvm.x86.sse.ldmxcsr(ptr)
declare void @llvm.x86.sse.stmxcsr(ptr)
declare i32 @PyGILState_Ensure()
declare void @PyGILState_Release(i32)
declare i32 @PyErr_CheckSignals()
declare void @PyErr_Fetch(ptr, ptr, ptr)

; What a context's `host_call` is: a long loop asks, now and then, whether to go on. Python's signal handlers run, in
; the main thread; what they raise is kept in the error record (type, value, traceback), for the caller to raise again.
define i32 @kiln_host_call(ptr %ctx, i64 %id, ptr %args) nounwind {
  %state = call i32 @PyGILState_Ensure()
  %raised = call i32 @PyErr_CheckSignals()
  %stop = icmp ne i32 %raised, 0
  br i1 %stop, label %keep, label %leave
keep:
  %field = getelementptr i64, ptr %ctx, i64 4
  %error = load ptr, ptr %field
  %type = getelementptr i64, ptr %error, i64 1
  %value = getelementptr i64, ptr %error, i64 2
  %trace = getelementptr i64, ptr %error, i64 3
  call void @PyErr_Fetch(ptr %type, ptr %value, ptr %trace)
  store i64 3, ptr %error
  br label %leave
leave:
  %status = phi i32 [0, %0], [3, %keep]
  call void @PyGILState_Release(i32 %state)
  ret i32 %status
}

; Set the calling thread's floating-point control register; what it was.
define i32 @kiln_exchange_csr(i32 %wanted) nounwind {
  %old = alloca i32
  %new = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %old)
  store i32 %wanted, ptr %new
  call void @llvm.x86.sse.ldmxcsr(ptr %new)
  %was = load i32, ptr %old
  ret i32 %was
}

define ptr @kiln_allocate(ptr %ctx, i64 %bytes) nounwind {
  %up = add i64 %bytes, 64
  %size = and i64 %up, -64
  %p = call ptr @aligned_alloc(i64 64, i64 %size)
  ret ptr %p
}

define void @kiln_free(ptr %ctx, ptr %p) nounwind {
  call void @free(ptr %p)
  ret void
}

; Claim and run chunks of region %g until none is left.
define internal void @work(i32 %g) nounwind {
entry:
  %gw = zext i32 %g to i64
  br label %try
try:
  %cur = load atomic i64, ptr @next acquire, align 8
  %region = lshr i64 %cur, 32
  %same = icmp eq i64 %region, %gw
  %left = trunc i64 %cur to i32
  %some = icmp ne i32 %left, 0
  %claimable = and i1 %same, %some
  br i1 %claimable, label %claim, label %out
claim:
  %less = sub i64 %cur, 1
  %r = cmpxchg ptr @next, i64 %cur, i64 %less acq_rel acquire
  %ok = extractvalue {i64, i1} %r, 1
  br i1 %ok, label %run, label %try
run:
  %body = load ptr, ptr @job_body
  %ctx = load ptr, ptr @job_ctx
  %closure = load ptr, ptr @job_closure
  %n = load i64, ptr @job_n
  %chunk = load i64, ptr @job_chunk
  %which = sub i32 %left, 1
  %index = zext i32 %which to i64
  %begin = mul i64 %index, %chunk
  %stop = add i64 %begin, %chunk
  %over = icmp sgt i64 %stop, %n
  %end = select i1 %over, i64 %n, i64 %stop
  call void %body(ptr %ctx, ptr %closure, i64 %begin, i64 %end)
  %d = atomicrmw add ptr @done, i32 1 acq_rel
  br label %try
out:
  ret void
}

; A worker: its number is in the argument. Numbers from @active on sleep through every region.
define internal ptr @worker(ptr %arg) nounwind {
entry:
  %id64 = ptrtoint ptr %arg to i64
  %id = trunc i64 %id64 to i32
  %csr = alloca i32
  store i32 8064, ptr %csr          ; 0x1f80: round to nearest, subnormals kept, no traps
  call void @llvm.x86.sse.ldmxcsr(ptr %csr)
  br label %idle
idle:
  %seen = phi i32 [0, %entry], [%g, %finished]
  br label %spin
spin:
  %count = phi i32 [0, %idle], [%count1, %again]
  %g0 = load atomic i32, ptr @gen acquire, align 4
  %new = icmp ne i32 %g0, %seen
  br i1 %new, label %go, label %again
again:
  call void @llvm.x86.sse2.pause()
  %count1 = add i32 %count, 1
  %more = icmp ult i32 %count1, 4000
  br i1 %more, label %spin, label %sleep
sleep:
  %s0 = atomicrmw add ptr @sleepers, i32 1 seq_cst
  %w = call i64 (i64, ...) @syscall(i64 202, ptr @gen, i64 128, i32 %seen, ptr null, ptr null, i64 0)
  %s1 = atomicrmw sub ptr @sleepers, i32 1 seq_cst
  %g1 = load atomic i32, ptr @gen acquire, align 4
  %still = icmp eq i32 %g1, %seen
  br i1 %still, label %sleep, label %go
go:
  %g = load atomic i32, ptr @gen acquire, align 4
  %limit = load atomic i32, ptr @active monotonic, align 4
  %mine = icmp slt i32 %id, %limit
  br i1 %mine, label %join, label %finished
join:
  call void @work(i32 %g)
  br label %finished
finished:
  br label %idle
}

; Start worker number %id; returns pthread_create's status.
define i32 @kiln_start_worker(i64 %id) nounwind {
  %t = alloca i64
  %arg = inttoptr i64 %id to ptr
  %r = call i32 @pthread_create(ptr %t, ptr null, ptr @worker, ptr %arg)
  %bad = icmp ne i32 %r, 0
  br i1 %bad, label %out, label %detach
detach:
  %id2 = load i64, ptr %t
  %d = call i32 @pthread_detach(i64 %id2)
  br label %out
out:
  ret i32 %r
}

; %n workers (numbers 0 .. n-1) take part from now on.
define void @kiln_set_workers(i32 %n) nounwind {
  store atomic i32 %n, ptr @active seq_cst, align 4
  ret void
}

; In a forked child no worker exists and no region can be under way.
define void @kiln_pool_reset() nounwind {
  store atomic i64 0, ptr @next seq_cst, align 8
  store atomic i32 0, ptr @gen seq_cst, align 4
  store atomic i32 0, ptr @sleepers seq_cst, align 4
  store atomic i32 0, ptr @active seq_cst, align 4
  store atomic i32 0, ptr @busy seq_cst, align 4
  ret void
}

define i32 @kiln_parallel_for(ptr %ctx, ptr %body, ptr %closure, i64 %n, i64 %grain) nounwind {
entry:
  %workers = load atomic i32, ptr @active monotonic, align 4
  %alone = icmp eq i32 %workers, 0
  %small = icmp sle i64 %n, %grain
  %inline0 = or i1 %alone, %small
  br i1 %inline0, label %inline, label %acquire
acquire:
  %r = cmpxchg ptr @busy, i32 0, i32 1 seq_cst seq_cst   ; another caller's region, or our own outer one: run here
  %ok = extractvalue {i32, i1} %r, 1
  br i1 %ok, label %start, label %inline
inline:
  %any = icmp sgt i64 %n, 0
  br i1 %any, label %all, label %out
all:
  call void %body(ptr %ctx, ptr %closure, i64 0, i64 %n)
  br label %out
start:
  %threads32 = add i32 %workers, 1
  %threads = zext i32 %threads32 to i64
  %parts = mul i64 %threads, 4
  %up = add i64 %n, %parts
  %up1 = sub i64 %up, 1
  %even = sdiv i64 %up1, %parts
  %fine = icmp slt i64 %even, %grain
  %chunk0 = select i1 %fine, i64 %grain, i64 %even
  %zero = icmp slt i64 %chunk0, 1
  %chunk = select i1 %zero, i64 1, i64 %chunk0
  %ceil0 = add i64 %n, %chunk
  %ceil1 = sub i64 %ceil0, 1
  %chunks = sdiv i64 %ceil1, %chunk
  %chunks32 = trunc i64 %chunks to i32
  store ptr %body, ptr @job_body
  store ptr %ctx, ptr @job_ctx
  store ptr %closure, ptr @job_closure
  store i64 %n, ptr @job_n
  store i64 %chunk, ptr @job_chunk
  store atomic i32 0, ptr @done monotonic, align 4
  %g0 = load i32, ptr @gen
  %g = add i32 %g0, 1
  %gw = zext i32 %g to i64
  %high = shl i64 %gw, 32
  %word = or i64 %high, %chunks
  store atomic i64 %word, ptr @next release, align 8
  %old = atomicrmw add ptr @gen, i32 1 seq_cst
  %asleep = load atomic i32, ptr @sleepers seq_cst, align 4
  %wake = icmp sgt i32 %asleep, 0
  br i1 %wake, label %rouse, label %help
rouse:
  %w = call i64 (i64, ...) @syscall(i64 202, ptr @gen, i64 129, i32 2147483647, ptr null, ptr null, i64 0)
  br label %help
help:
  call void @work(i32 %g)
  br label %join
join:
  %count = phi i32 [0, %help], [%count1, %wait]
  %d = load atomic i32, ptr @done acquire, align 4
  %finished = icmp eq i32 %d, %chunks32
  br i1 %finished, label %release, label %pause
pause:
  %count1 = add i32 %count, 1
  %long = icmp ugt i32 %count1, 2000
  br i1 %long, label %yield, label %wait
yield:
  %y = call i64 (i64, ...) @syscall(i64 24)
  br label %wait
wait:
  call void @llvm.x86.sse2.pause()
  br label %join
release:
  store atomic i32 0, ptr @busy seq_cst, align 4
  br label %out
out:
  ret i32 0
}
