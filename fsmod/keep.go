// SPDX-License-Identifier: Apache-2.0

// Memory for the arguments of scripts.
//
// They are laid into memory that the thread maps for the exec, and that goes with it. After
// vfork(2), as posix_spawn(3) has it, the memory is the parent's, which goes on with it: so
// that is kept for the parent's next script. It is known by a number at its beginning that
// only we know, so that nothing is written where the program has something else by now.

package fsmod

import (
	"crypto/rand"
	"fmt"
	"strings"
	"sync"

	"umrun/intercept"
)

// keptHead is room for the number.
const keptHead = 16

// keptMost bounds the parents that are remembered.
const keptMost = 1 << 10

// keptPages are the pages that parents have, by their process numbers. The zero value is
// ready.
type keptPages struct {
	mu sync.Mutex
	m  map[int]keptPage
}

type keptPage struct {
	at, size uint64
	number   [keptHead]byte
}

// there reports whether a task has the page.
func (p *keptPage) there(tid int) bool {
	var b [keptHead]byte
	return p.size > 0 && peek(tid, p.at, b[:]) == nil && b == p.number
}

// take returns a parent's page, which is nobody else's until it is put back.
func (k *keptPages) take(parent int) keptPage {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.m[parent]
	delete(k.m, parent)
	return p
}

func (k *keptPages) put(parent int, p keptPage) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.m == nil || len(k.m) >= keptMost {
		k.m = make(map[int]keptPage)
	}
	k.m[parent] = p
}

// onKept is OnPage for an exec, with memory that may be the parent's from the last one.
func (k *keptPages) onKept(c *intercept.Call, do func(intercept.Injected) (int64, error), content []byte, f func(tid int, at uint64) (int64, error)) (int64, error) {
	parent := parentOf(c.TID)
	p := k.take(parent)
	if uint64(len(content)+keptHead) <= p.size && p.there(c.TID) {
		defer k.put(parent, p)
		if err := poke(c.TID, p.at+keptHead, content); err != nil {
			return 0, err
		}
		return f(c.TID, p.at+keptHead)
	}
	if p.size > 0 {
		k.put(parent, p)
	}
	_, _ = rand.Read(p.number[:]) // never fails
	content = append(p.number[:], content...)
	return OnPage(c, do, content, func(tid int, at uint64) (int64, error) {
		p.at, p.size = at, pages(content)
		shared := parent > 0 && p.there(parent)
		result, err := f(tid, at+keptHead)
		if shared && err == intercept.ErrExec {
			k.put(parent, p)
		}
		return result, err
	})
}

// pages is how much memory OnPage has for a content.
func pages(content []byte) uint64 { return uint64(len(content)+4095) &^ 4095 }

// parentOf is the parent of a task's process (proc_pid_stat(5)), 0 if it cannot be known.
func parentOf(tid int) int {
	var buf [procSize]byte
	b, err := intercept.ReadProc(taskFile(tid, "stat"), buf[:])
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b[max(strings.LastIndexByte(string(b), ')'), 0):]), " ")
	var state string
	var parent int
	if _, err := fmt.Sscan(rest, &state, &parent); err != nil {
		return 0
	}
	return parent
}
