; Whether places in Python's memory still hold what they held: the loop behind kiln.runtime.facts.
;
; A method of Python's without arguments, whose self is an int, the address of a table of 64-bit words. Rows:
;
;   0                                      the end
;   1  object  n  (key, value) * n         a dict holds exactly these, in this order; a value of 0 may be any
;   2  n  (address, word) * n              words of memory
;   3  object  key  value                  an entry of a dict (0: none)
;   4  object  n  item * n                 a list
;   5  function  object  argument  value   what a C function gives, borrowed
;   6  function  object  argument  value   what a C function gives, as a new reference; 0 when it raises
;
; Everything but rows of words goes through Python's public functions, and the caller has the interpreter lock.

declare i64 @PyDict_Size(ptr)
declare i32 @PyDict_Next(ptr, ptr, ptr, ptr)
declare ptr @PyDict_GetItem(ptr, ptr)
declare i64 @PyList_Size(ptr)
declare ptr @PyList_GetItem(ptr, i64)
declare ptr @PyLong_AsVoidPtr(ptr)
declare ptr @PyBool_FromLong(i64)
declare void @PyErr_Clear()
declare void @Py_DecRef(ptr)

define ptr @kiln_facts_hold(ptr %self, ptr %none) nounwind {
entry:
  %at = alloca i64
  %key = alloca i64
  %value = alloca i64
  %table = call ptr @PyLong_AsVoidPtr(ptr %self)
  br label %row
row:
  %r = phi ptr [%table, %entry], [%e, %dict], [%e2, %pair], [%w2, %word_row], [%w3, %word], [%g4, %get], [%l3, %list],
               [%l6, %item], [%b5, %borrowed], [%f5, %release]
  %kind = load i64, ptr %r
  %r1 = getelementptr i64, ptr %r, i64 1
  %r2 = getelementptr i64, ptr %r, i64 2
  %r3 = getelementptr i64, ptr %r, i64 3
  switch i64 %kind, label %no [i64 0, label %yes  i64 1, label %dict_size  i64 2, label %word_row  i64 3, label %get
                               i64 4, label %list_size  i64 5, label %borrowed  i64 6, label %fresh]

dict_size:
  %d = load ptr, ptr %r1
  %n = load i64, ptr %r2
  %size = call i64 @PyDict_Size(ptr %d)
  %sized = icmp eq i64 %size, %n
  br i1 %sized, label %dict, label %no
dict:
  %e = getelementptr i64, ptr %r, i64 3
  store i64 0, ptr %at
  %none_there = icmp eq i64 %n, 0
  br i1 %none_there, label %row, label %pair_next
pair_next:
  %p = phi ptr [%e, %dict], [%e2, %pair]
  %left = phi i64 [%n, %dict], [%less, %pair]
  %there = call i32 @PyDict_Next(ptr %d, ptr %at, ptr %key, ptr %value)
  %is_there = icmp ne i32 %there, 0
  br i1 %is_there, label %pair_key, label %no
pair_key:
  %k = load i64, ptr %key
  %k0 = load i64, ptr %p
  %same_key = icmp eq i64 %k, %k0
  %pv = getelementptr i64, ptr %p, i64 1
  %v = load i64, ptr %value
  %v0 = load i64, ptr %pv
  %same_value = icmp eq i64 %v, %v0
  %any_value = icmp eq i64 %v0, 0
  %fine_value = or i1 %same_value, %any_value
  %fine = and i1 %same_key, %fine_value
  br i1 %fine, label %pair, label %no
pair:
  %e2 = getelementptr i64, ptr %p, i64 2
  %less = sub i64 %left, 1
  %last = icmp eq i64 %less, 0
  br i1 %last, label %row, label %pair_next

word_row:
  %wn = load i64, ptr %r1
  %w2 = getelementptr i64, ptr %r, i64 2
  %wordless = icmp eq i64 %wn, 0
  br i1 %wordless, label %row, label %word_next
word_next:
  %wp = phi ptr [%w2, %word_row], [%w3, %word]
  %words = phi i64 [%wn, %word_row], [%fewer, %word]
  %w = load ptr, ptr %wp
  %we = getelementptr i64, ptr %wp, i64 1
  %w0 = load i64, ptr %we
  %w1 = load i64, ptr %w
  %same_word = icmp eq i64 %w1, %w0
  br i1 %same_word, label %word, label %no
word:
  %w3 = getelementptr i64, ptr %wp, i64 2
  %fewer = sub i64 %words, 1
  %last_word = icmp eq i64 %fewer, 0
  br i1 %last_word, label %row, label %word_next

get:
  %gd = load ptr, ptr %r1
  %gk = load ptr, ptr %r2
  %g0 = load ptr, ptr %r3
  %g = call ptr @PyDict_GetItem(ptr %gd, ptr %gk)
  %g4 = getelementptr i64, ptr %r, i64 4
  %same_get = icmp eq ptr %g, %g0
  br i1 %same_get, label %row, label %no

list_size:
  %l = load ptr, ptr %r1
  %ln = load i64, ptr %r2
  %lsize = call i64 @PyList_Size(ptr %l)
  %lsized = icmp eq i64 %lsize, %ln
  br i1 %lsized, label %list, label %no
list:
  %l3 = getelementptr i64, ptr %r, i64 3
  %empty = icmp eq i64 %ln, 0
  br i1 %empty, label %row, label %item_next
item_next:
  %i = phi i64 [0, %list], [%i1, %item]
  %q = phi ptr [%l3, %list], [%l6, %item]
  %x = call ptr @PyList_GetItem(ptr %l, i64 %i)
  %x0 = load ptr, ptr %q
  %same_item = icmp eq ptr %x, %x0
  br i1 %same_item, label %item, label %no
item:
  %i1 = add i64 %i, 1
  %l6 = getelementptr i64, ptr %q, i64 1
  %last_item = icmp eq i64 %i1, %ln
  br i1 %last_item, label %row, label %item_next

borrowed:
  %bf = load ptr, ptr %r1
  %bx = load ptr, ptr %r2
  %ba = load ptr, ptr %r3
  %b4 = getelementptr i64, ptr %r, i64 4
  %b0 = load ptr, ptr %b4
  %b = call ptr %bf(ptr %bx, ptr %ba)
  %b5 = getelementptr i64, ptr %r, i64 5
  %same_borrowed = icmp eq ptr %b, %b0
  br i1 %same_borrowed, label %row, label %no

fresh:
  %ff = load ptr, ptr %r1
  %fx = load ptr, ptr %r2
  %fa = load ptr, ptr %r3
  %f4 = getelementptr i64, ptr %r, i64 4
  %f0 = load ptr, ptr %f4
  %f = call ptr %ff(ptr %fx, ptr %fa)
  %f5 = getelementptr i64, ptr %r, i64 5
  %raised = icmp eq ptr %f, null
  br i1 %raised, label %clear, label %drop
clear:
  call void @PyErr_Clear()
  br label %release
drop:
  call void @Py_DecRef(ptr %f)
  br label %release
release:
  %same_fresh = icmp eq ptr %f, %f0
  br i1 %same_fresh, label %row, label %no

yes:
  %true = call ptr @PyBool_FromLong(i64 1)
  ret ptr %true
no:
  %false = call ptr @PyBool_FromLong(i64 0)
  ret ptr %false
}
