// SPDX-License-Identifier: Apache-2.0

// Captures: pcapng files.

package observe

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"umrun/stacks"
)

// A Capture is a pcapng file (draft-ietf-opsawg-pcapng), which recorders share. It is
// safe for concurrent use.
type Capture struct {
	name string

	mu      sync.Mutex
	w       io.WriteCloser
	ng      *pcapgo.NgWriter // nil before the first interface
	started time.Time
	packets map[int]uint64 // by interface
	closed  bool
}

// CreateCapture creates the file, which only its owner may read.
func CreateCapture(name string) (*Capture, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	return &Capture{name: name, w: f, started: time.Now(), packets: make(map[int]uint64)}, nil
}

// addInterface enters an interface and returns its number.
func (c *Capture) addInterface(network string, ifc *stacks.Interface) (int, error) {
	i := pcapgo.NgInterface{
		Name:                ifc.Name,
		Description:         "umrun network " + network,
		LinkType:            layers.LinkTypeRaw,
		TimestampResolution: 9, // ns
	}
	if ifc.Type == stacks.LinkEthernet {
		i.LinkType = layers.LinkTypeEthernet
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ng != nil {
		id, err := c.ng.AddInterface(i)
		return id, c.wrap(err)
	}
	var err error
	c.ng, err = pcapgo.NewNgWriterInterface(c.w, i, pcapgo.NgWriterOptions{
		SectionInfo: pcapgo.NgSectionInfo{OS: runtime.GOOS, Application: "umrun"},
	})
	return 0, c.wrap(err)
}

// write writes one packet.
func (c *Capture) write(id int, p *packet, comment string) error {
	o := pcapgo.NgPacketOptions{Flags: &pcapgo.NgEpbFlags{Direction: pcapgo.NgEpbFlagDirectionInbound}}
	if p.out {
		o.Flags.Direction = pcapgo.NgEpbFlagDirectionOutbound
	}
	if comment != "" {
		o.Comments = []string{comment}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.packets[id]++
	return c.wrap(c.ng.WritePacketWithOptions(gopacket.CaptureInfo{
		Timestamp: p.at, CaptureLength: len(p.frame), Length: len(p.frame), InterfaceIndex: id,
	}, p.frame, o))
}

// statistics says what was recorded of an interface, and what was lost.
func (c *Capture) statistics(id int, dropped uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wrap(c.ng.WriteInterfaceStats(id, pcapgo.NgInterfaceStatistics{
		LastUpdate: time.Now(), StartTime: c.started, EndTime: time.Now(),
		PacketsReceived: c.packets[id], PacketsDropped: dropped,
	}))
}

func (c *Capture) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ng == nil || c.closed {
		return nil
	}
	return c.wrap(c.ng.Flush())
}

// Close ends the file. Twice is fine.
func (c *Capture) Close() error {
	err := c.flush()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	if e := c.w.Close(); err == nil {
		err = e
	}
	return err
}

func (c *Capture) wrap(err error) error {
	if err != nil {
		if pe := (*os.PathError)(nil); errors.As(err, &pe) {
			err = pe.Err // it has the name
		}
		return fmt.Errorf("write %s: %w", c.name, err)
	}
	return nil
}
