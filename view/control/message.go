// SPDX-License-Identifier: Apache-2.0

// Messages: what is said on a control socket.

package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"
)

// The operations.
const (
	Info   = "info"   // what the view is
	Mount  = "mount"  // Spec, from the directory Dir
	Umount = "umount" // Path, an absolute one
)

// Bounds of messages, in bytes. An answer has the program's arguments, which are 6 MiB at most
// (execve(2)), and in JSON up to six times that.
const (
	maxRequest = 1 << 16
	maxAnswer  = 1 << 26
)

// Text is a string of any bytes, as names of files are. JSON's strings are UTF-8, and other bytes
// would come as others: so it is written in base64.
type Text string

// MarshalJSON is [json.Marshaler].
func (t Text) MarshalJSON() ([]byte, error) { return json.Marshal([]byte(t)) }

// UnmarshalJSON is [json.Unmarshaler].
func (t *Text) UnmarshalJSON(b []byte) error {
	var raw []byte
	err := json.Unmarshal(b, &raw)
	*t = Text(raw)
	return err
}

// A Request asks a view for something.
type Request struct {
	Op   string `json:"op"`
	Spec Text   `json:"spec,omitempty"` // of a mount, as --mount has it
	Dir  Text   `json:"dir,omitempty"`  // what relative paths in Spec are taken from
	Path Text   `json:"path,omitempty"` // where the mount is that goes
	Lazy bool   `json:"lazy,omitempty"` // though it is in use
}

// An Answer is what comes back: an error, or what was asked for.
type Answer struct {
	Error *Error `json:"error,omitempty"`
	View  *View  `json:"view,omitempty"` // of Info
}

// An Error says what failed as view.Problem does.
type Error struct {
	Code int      `json:"code"` // exit status
	What string   `json:"what"`
	Why  string   `json:"why,omitempty"`
	Try  []string `json:"try,omitempty"`
}

// A View is what `umrun ps` shows.
type View struct {
	Name     string    `json:"name"`
	PID      int       `json:"pid"` // of the program; 0: it has not begun
	Command  []string  `json:"command"`
	Networks []Network `json:"networks"`
	Mounts   []string  `json:"mounts,omitempty"` // as --mount has them, in their order
	Since    time.Time `json:"since"`
}

// A Network is one of a view's.
type Network struct {
	Name      string   `json:"name"`
	Addresses []string `json:"addresses"`
}

// DecodeRequest reads a request, which is all of b. What it does not know is an error.
func DecodeRequest(b []byte) (Request, error) {
	var r Request
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return r, fmt.Errorf("no request: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return r, errors.New("no request: something follows it")
	}
	switch r.Op {
	case Info:
	case Mount:
		if r.Spec == "" || !filepath.IsAbs(string(r.Dir)) {
			return r, errors.New("a mount has a spec and an absolute directory")
		}
	case Umount:
		if !filepath.IsAbs(string(r.Path)) {
			return r, errors.New("what is unmounted has an absolute path")
		}
	default:
		return r, fmt.Errorf("unknown operation %q", r.Op)
	}
	if strings.ContainsRune(string(r.Spec+r.Dir+r.Path), 0) {
		return r, errors.New("there is a NUL in it")
	}
	return r, nil
}
