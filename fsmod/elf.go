// SPDX-License-Identifier: Apache-2.0

// The ELF loader that a program names, and a copy that names another one.

package fsmod

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// elfMachines are those whose programs the kernel runs by itself (e_machine of elf.h).
var elfMachines = map[string][]uint16{
	"amd64": {62, 3},   // EM_X86_64, EM_386
	"arm64": {183, 40}, // EM_AARCH64, EM_ARM
}[runtime.GOARCH]

// elfLoader returns the name in the PT_INTERP segment and where it is (elf(5)).
func elfLoader(f *os.File) (name string, at int64, err error) {
	var h [64]byte
	n, _ := f.ReadAt(h[:], 0)
	if n < 52 || string(h[:4]) != "\x7fELF" {
		return "", 0, unix.ENOEXEC // what binfmt_misc(5) knows is not for here
	}
	var order binary.ByteOrder = binary.LittleEndian
	if h[5] == 2 {
		order = binary.BigEndian
	}
	if !slices.Contains(elfMachines, order.Uint16(h[18:])) {
		return "", 0, unix.ENOEXEC // nor what it knows of other machines' programs
	}
	wide := h[4] == 2
	var off int64
	var size, count int
	if wide {
		off, size, count = int64(order.Uint64(h[32:])), int(order.Uint16(h[54:])), int(order.Uint16(h[56:]))
	} else {
		off, size, count = int64(order.Uint32(h[28:])), int(order.Uint16(h[42:])), int(order.Uint16(h[44:]))
	}
	if size < 32 || wide && size < 56 || size*count > 65536 || off < 0 {
		return "", 0, unix.ENOEXEC
	}
	ph := make([]byte, size*count)
	if n, _ := f.ReadAt(ph, off); n < len(ph) {
		return "", 0, unix.ENOEXEC
	}
	for ; len(ph) > 0; ph = ph[size:] {
		const ptInterp = 3
		if order.Uint32(ph) != ptInterp {
			continue
		}
		var length uint64
		if wide {
			at, length = int64(order.Uint64(ph[8:])), order.Uint64(ph[32:])
		} else {
			at, length = int64(order.Uint32(ph[4:])), uint64(order.Uint32(ph[16:]))
		}
		if length < 2 || length > pathMax {
			return "", 0, unix.ENOEXEC
		}
		b := make([]byte, length)
		if n, _ := f.ReadAt(b, at); n < len(b) || b[length-1] != 0 {
			return "", 0, unix.ENOEXEC
		}
		name, _, _ := strings.Cut(string(b), "\x00")
		return name, at, nil
	}
	return "", 0, nil
}

// renameLoader puts a copy in the place of the program that names the thread's descriptor
// fd as its loader.
func (im *image) renameLoader(fd int) error {
	old, at, err := elfLoader(im.file)
	if err != nil {
		return err
	}
	name := "/proc/self/fd/" + strconv.Itoa(fd)
	if len(name) > len(old) {
		return unix.ENAMETOOLONG
	}
	st, err := im.file.Stat()
	if err != nil {
		return err
	}
	base := im.view[strings.LastIndexByte(im.view, '/')+1:]
	mem, err := unix.MemfdCreate(base[:min(len(base), 200)], unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return err
	}
	defer unix.Close(mem)
	for off := int64(0); off < st.Size(); {
		n, err := unix.Sendfile(mem, int(im.file.Fd()), &off, int(min(st.Size()-off, 1<<30)))
		if err != nil {
			return fmt.Errorf("copy %s: %w", im.view, err)
		}
		if n == 0 {
			break
		}
	}
	if _, err := unix.Pwrite(mem, append([]byte(name), make([]byte, len(old)-len(name))...), at); err != nil {
		return err
	}
	if err := unix.Fchmod(mem, 0o555); err != nil {
		return err
	}
	if _, err := unix.FcntlInt(uintptr(mem), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
		return err
	}
	// What is open for writing is not executed (ETXTBSY).
	ro, err := unix.Open(procFD(mem), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	im.file.Close()
	im.file = os.NewFile(uintptr(ro), im.view)
	return nil
}
