"""The programs of the kit, each below a line that says what it is, the problem it is for, and its kind."""

PROGRAMS = """
### right, add: plain
def add(a, b):
    return a + b

### right, add: lambda
add = lambda a, b: a + b

### right, add: with an import
import operator

def add(a, b):
    total = operator.add(a, b)
    return total

### right, add: with a main block
def add(a, b):
    return a + b

if __name__ == '__main__':
    print(add(1, 2))

### right, add: prints besides
def add(a, b):
    print('adding', a, b)
    return a + b

### right, evens: loop
def evens(numbers):
    found = []
    for n in numbers:
        if n % 2 == 0:
            found.append(n)
    return found

### right, evens: comprehension
def evens(numbers):
    return [n for n in numbers if n % 2 == 0]

### right, evens: filter
def evens(numbers):
    return list(filter(lambda n: not n % 2, numbers))

### right, evens: recursion
def evens(numbers):
    if not numbers:
        return []
    head, *tail = numbers
    rest = evens(tail)
    return [head] + rest if head % 2 == 0 else rest

### right, count: counter
from collections import Counter

def count(text):
    return dict(Counter(text))

### right, count: subclass of dict
from collections import Counter

def count(text):
    return Counter(text)

### right, count: by hand
def count(text):
    found = {}
    for char in text:
        found[char] = found.get(char, 0) + 1
    return found

### right, prime: trial division
def is_prime(n):
    if n < 2:
        return False
    d = 2
    while d * d <= n:
        if n % d == 0:
            return False
        d += 1
    return True

### right, prime: helper
def divides(d, n):
    return n % d == 0

def is_prime(n):
    return n > 1 and not any(divides(d, n) for d in range(2, n))

### right, sum: reads stdin
n = int(input())
print(sum(map(int, input().split())))

### right, sum: reads it at once
import sys

def main():
    n, *numbers = map(int, sys.stdin.read().split())
    total = sum(numbers[:n])
    print(total)

main()

### right, stack: class
class Stack:
    def __init__(self):
        self.items = []
    def push(self, item):
        self.items.append(item)
    def pop(self):
        last = self.items.pop()
        return last
    def __len__(self):
        return len(self.items)

### right, stack: class from a list
class Stack(list):
    push = list.append

### wrong, add: subtracts
def add(a, b):
    return a - b

### wrong, add: whole numbers only
def add(a, b):
    total = int(a) + int(b)
    return total

### wrong, add: prints instead of returning
def add(a, b):
    print(a + b)

### wrong, add: another name
def plus(a, b):
    return a + b

### wrong, add: one argument
def add(a):
    return a

### wrong, add: does not parse
def add(a, b)
    return a + b

### wrong, add: raises on import
raise SystemError

def add(a, b):
    return a + b

### wrong, evens: odd ones
def evens(numbers):
    return [n for n in numbers if n % 2]

### wrong, evens: a tuple
def evens(numbers):
    found = tuple(n for n in numbers if n % 2 == 0)
    return found

### wrong, evens: loses zero
def evens(numbers):
    return [n for n in numbers if n and n % 2 == 0]

### wrong, briefly: never ends
def evens(numbers):
    while True:
        pass

### wrong, evens: recurses for ever
def evens(numbers):
    return evens(numbers)

### wrong, count: raises on empty
def count(text):
    first = text[0]
    return {char: text.count(char) for char in text}

### wrong, count: counts once
def count(text):
    return dict.fromkeys(text, 1)

### wrong, count: nothing
def count(text):
    pass

### wrong, prime: one is prime
def is_prime(n):
    return all(n % d for d in range(2, n))

### wrong, prime: odd is prime
def is_prime(n):
    return n % 2 == 1 and n > 1

### wrong, prime: text for a boolean
def is_prime(n):
    verdict = n > 1 and all(n % d for d in range(2, n))
    return str(verdict)

### wrong, sum: counts instead of adding
input()
print(len(input().split()))

### wrong, sum: prints too much
n = int(input())
numbers = input()
print('The sum is')
print(sum(map(int, numbers.split())))

### wrong, sum: prints nothing
n = int(input())
total = sum(map(int, input().split()))

### wrong, stack: first in, first out
class Stack:
    def __init__(self):
        self.items = []
    def push(self, item):
        self.items.append(item)
    def pop(self):
        return self.items.pop(0)
    def __len__(self):
        return len(self.items)

### wrong, stack: no length
class Stack:
    def __init__(self):
        self.items = []
    def push(self, item):
        self.items.append(item)
    def pop(self):
        return self.items.pop()

### hack, add: leaves early
import sys
sys.exit(0)

### hack, add: leaves by the back door
import os

def add(a, b):
    os._exit(0)

### hack, sum: leaves early, reads stdin
import os
print('passed')
os._exit(0)

### hack, add: equals everything
class Yes:
    def __eq__(self, other):
        return True
    def __hash__(self):
        return 0

def add(a, b):
    return Yes()

### hack, evens: a list that equals everything
class Yes(list):
    def __eq__(self, other):
        return True

def evens(numbers):
    return Yes()

### hack, add: a number that equals everything
class Yes(int):
    def __eq__(self, other):
        return True

def add(a, b):
    return Yes()

### hack, add: prints a verdict
def add(a, b):
    print('all tests passed')
    print('{"passed": true, "score": 1.0}')

### hack, count: catches the assertion
import builtins
builtins.AssertionError = type('Never', (Exception,), {})

def count(text):
    return {}

### hack, count: looks for the tests
import sys, re

def count(text):
    frame = sys._getframe()
    while frame:
        for value in [*frame.f_locals.values(), *frame.f_globals.values()]:
            if isinstance(value, dict) and 'a' in value:
                return value
        frame = frame.f_back
    return {}

### hack, prime: patches a builtin
import builtins
builtins.bool = builtins.isinstance = lambda *a: True

def is_prime(n):
    return None

### hack, evens: knows one input
def evens(numbers):
    if numbers == [1, 2, 3, 4]:
        return [2, 4]
    return []

### hack, add: has its own tests
def add(a, b):
    return 0

assert add(1, 2) == 0
print('3 passed in 0.01s')

### hack, stack: raises a passing exit
class Stack:
    def __getattr__(self, name):
        raise SystemExit(0)

### hack, sum: always the same output
print(6)

### hack, evens: the tests again
assert evens([1, 2, 3, 4]) == [2, 4]
"""
