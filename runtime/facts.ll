; Whether places in Python's memory still hold what they held: the loop behind kiln.runtime.facts.
;
; A method of Python's without arguments, whose self is an int, the address of a table of 64-bit words:
;
;   n  exact  rest         how many pairs there are, a multiple of four, how many of them are exact, where `rest` begins
;   (address, word) * n    words of memory: the exact ones first, then version tags of dicts
;   where * (n - exact)    for each tag, where the rows begin that say what its dict holds
;   rest                   rows that are looked at each time
;   rows of dicts
;
; Where something begins is said in words from the start of the table. When a tag is another than it was, its rows are
; looked at; if they hold, the table takes the tag that was there before they were looked at. Rows, up to the one that
; ends them:
;
;   0                                      the end
;   1  object  n  (key, value) * n         a dict holds exactly these, in this order; a value of 0 may be any
;   2  object  key  value                  an entry of a dict (0: none)
;   3  object  n  item * n                 a list
;   4  function  object  argument  value   what a C function gives, borrowed
;   5  function  object  argument  value   what a C function gives, as a new reference; 0 when it raises
;
; Rows go through Python's public functions, and the caller has the interpreter lock.

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
  %table = call ptr @PyLong_AsVoidPtr(ptr %self)
  %n = load i64, ptr %table
  %exact_at = getelementptr i64, ptr %table, i64 1
  %exact = load i64, ptr %exact_at
  %rest_at = getelementptr i64, ptr %table, i64 2
  %rest = load i64, ptr %rest_at
  %pairs = getelementptr i64, ptr %table, i64 3
  %n2 = mul i64 %n, 2
  %wheres = getelementptr i64, ptr %pairs, i64 %n2
  %pairless = icmp eq i64 %n, 0
  br i1 %pairless, label %others, label %four

four:
  %i = phi i64 [0, %entry], [%i4, %next]
  %i2 = mul i64 %i, 2
  %p0 = getelementptr i64, ptr %pairs, i64 %i2
  %q0 = getelementptr i64, ptr %p0, i64 1
  %p1 = getelementptr i64, ptr %p0, i64 2
  %q1 = getelementptr i64, ptr %p0, i64 3
  %p2 = getelementptr i64, ptr %p0, i64 4
  %q2 = getelementptr i64, ptr %p0, i64 5
  %p3 = getelementptr i64, ptr %p0, i64 6
  %q3 = getelementptr i64, ptr %p0, i64 7
  %a0 = load ptr, ptr %p0
  %a1 = load ptr, ptr %p1
  %a2 = load ptr, ptr %p2
  %a3 = load ptr, ptr %p3
  %w0 = load i64, ptr %q0
  %w1 = load i64, ptr %q1
  %w2 = load i64, ptr %q2
  %w3 = load i64, ptr %q3
  %v0 = load i64, ptr %a0
  %v1 = load i64, ptr %a1
  %v2 = load i64, ptr %a2
  %v3 = load i64, ptr %a3
  %x0 = xor i64 %v0, %w0
  %x1 = xor i64 %v1, %w1
  %x2 = xor i64 %v2, %w2
  %x3 = xor i64 %v3, %w3
  %x01 = or i64 %x0, %x1
  %x23 = or i64 %x2, %x3
  %x = or i64 %x01, %x23
  %i4 = add i64 %i, 4
  %as_they_were = icmp eq i64 %x, 0
  br i1 %as_they_were, label %next, label %one
next:
  %last = icmp eq i64 %i4, %n
  br i1 %last, label %others, label %four

one:
  %k = phi i64 [%i, %four], [%k1, %one_next]
  %k2 = mul i64 %k, 2
  %p = getelementptr i64, ptr %pairs, i64 %k2
  %q = getelementptr i64, ptr %p, i64 1
  %a = load ptr, ptr %p
  %w = load i64, ptr %q
  %v = load i64, ptr %a
  %as_it_was = icmp eq i64 %v, %w
  br i1 %as_it_was, label %one_next, label %differs
differs:
  %tag = sub i64 %k, %exact
  %is_word = icmp slt i64 %tag, 0
  br i1 %is_word, label %no, label %touched
touched:
  %where = getelementptr i64, ptr %wheres, i64 %tag
  %rows_at = load i64, ptr %where
  %rows = getelementptr i64, ptr %table, i64 %rows_at
  %fine = call i1 @rows_hold(ptr %rows)
  br i1 %fine, label %renew, label %no
renew:
  store i64 %v, ptr %q
  br label %one_next
one_next:
  %k1 = add i64 %k, 1
  %all_four = icmp eq i64 %k1, %i4
  br i1 %all_four, label %next, label %one

others:
  %other_rows = getelementptr i64, ptr %table, i64 %rest
  %others_fine = call i1 @rows_hold(ptr %other_rows)
  br i1 %others_fine, label %yes, label %no
yes:
  %true = call ptr @PyBool_FromLong(i64 1)
  ret ptr %true
no:
  %false = call ptr @PyBool_FromLong(i64 0)
  ret ptr %false
}

define internal i1 @rows_hold(ptr %rows) nounwind {
entry:
  %at = alloca i64
  %key = alloca i64
  %value = alloca i64
  br label %row
row:
  %r = phi ptr [%rows, %entry], [%e, %dict], [%e2, %pair], [%g4, %get], [%l3, %list], [%l6, %item],
               [%b5, %borrowed], [%f5, %release]
  %kind = load i64, ptr %r
  %r1 = getelementptr i64, ptr %r, i64 1
  %r2 = getelementptr i64, ptr %r, i64 2
  %r3 = getelementptr i64, ptr %r, i64 3
  switch i64 %kind, label %no [i64 0, label %yes  i64 1, label %dict_size  i64 2, label %get  i64 3, label %list_size
                               i64 4, label %borrowed  i64 5, label %fresh]

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
  ret i1 true
no:
  ret i1 false
}
