; Functions of Python's that call native code: what kiln.runtime.calls makes.
;
; Methods of Python's with arguments in an array, whose self is an int, the address of two 64-bit words: the native
; function, `int32 f(context, slots)`, and the number of slots. They are called with the context and the slots, ints all,
; and return the status. The second hands the interpreter lock over meanwhile.

declare ptr @PyLong_AsVoidPtr(ptr)
declare i64 @PyLong_AsLongLong(ptr)
declare ptr @PyLong_FromLong(i64)
declare ptr @PyErr_Occurred()
declare i32 @PyErr_BadArgument()
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)

define ptr @kiln_call(ptr %self, ptr %args, i64 %n) nounwind {
  %returned = call ptr @call(ptr %self, ptr %args, i64 %n, i1 0)
  ret ptr %returned
}

define ptr @kiln_call_unlocked(ptr %self, ptr %args, i64 %n) nounwind {
  %returned = call ptr @call(ptr %self, ptr %args, i64 %n, i1 1)
  ret ptr %returned
}

define internal ptr @call(ptr %self, ptr %args, i64 %n, i1 %unlocked) nounwind {
entry:
  %table = call ptr @PyLong_AsVoidPtr(ptr %self)
  %function = load ptr, ptr %table
  %count_at = getelementptr i64, ptr %table, i64 1
  %count = load i64, ptr %count_at
  %all = add i64 %count, 1
  %complete = icmp eq i64 %n, %all
  br i1 %complete, label %first, label %wrong
wrong:
  %raised = call i32 @PyErr_BadArgument()
  ret ptr null

first:
  %slots = alloca i64, i64 %count, align 16
  %a0 = load ptr, ptr %args
  %context = call ptr @PyLong_AsVoidPtr(ptr %a0)
  %rest = getelementptr ptr, ptr %args, i64 1
  br label %more
more:
  %k = phi i64 [0, %first], [%k1, %one]
  %there = icmp slt i64 %k, %count
  br i1 %there, label %one, label %taken
one:
  %at = getelementptr ptr, ptr %rest, i64 %k
  %a = load ptr, ptr %at
  %value = call i64 @PyLong_AsLongLong(ptr %a)
  %slot = getelementptr i64, ptr %slots, i64 %k
  store i64 %value, ptr %slot
  %k1 = add i64 %k, 1
  br label %more

taken:
  %error = call ptr @PyErr_Occurred()
  %no_error = icmp eq ptr %error, null
  br i1 %no_error, label %run, label %no_int
no_int:
  ret ptr null
run:
  br i1 %unlocked, label %without, label %with
with:
  %status_with = call i32 %function(ptr %context, ptr %slots)
  br label %done
without:
  %thread = call ptr @PyEval_SaveThread()
  %status_without = call i32 %function(ptr %context, ptr %slots)
  call void @PyEval_RestoreThread(ptr %thread)
  br label %done
done:
  %status = phi i32 [%status_with, %with], [%status_without, %without]
  %wide = sext i32 %status to i64
  %returned = call ptr @PyLong_FromLong(i64 %wide)
  ret ptr %returned
}
