// SPDX-License-Identifier: Apache-2.0

// What is to be impaired, in the words of tc(8).

package impair

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Config says how. The zero value impairs nothing.
type Config struct {
	Rate   float64       // bytes of packets per second, each way; 0: any
	Delay  time.Duration // each way
	Jitter time.Duration // the delay of each packet is up to so much more or less
	Loss   float64       // probability that a packet is lost, 0 to 1
}

// A unit is a suffix and what one of it is.
type unit struct {
	name string
	size float64
}

// rateUnits are those of tc(8), in bytes per second, longest first.
var rateUnits = []unit{
	{"kibit", 1 << 10 / 8.}, {"mibit", 1 << 20 / 8.}, {"gibit", 1 << 30 / 8.}, {"tibit", 1 << 40 / 8.},
	{"kibps", 1 << 10}, {"mibps", 1 << 20}, {"gibps", 1 << 30}, {"tibps", 1 << 40},
	{"kbit", 1e3 / 8}, {"mbit", 1e6 / 8}, {"gbit", 1e9 / 8}, {"tbit", 1e12 / 8},
	{"kbps", 1e3}, {"mbps", 1e6}, {"gbps", 1e9}, {"tbps", 1e12},
	{"bit", 1. / 8}, {"bps", 1},
}

var timeUnits = []unit{
	{"usecs", 1e-6}, {"msecs", 1e-3}, {"secs", 1}, {"usec", 1e-6}, {"msec", 1e-3}, {"sec", 1},
	{"us", 1e-6}, {"ms", 1e-3}, {"s", 1},
}

// Least and most of what can be asked for.
const (
	minRate  = 1000 / 8. // bytes per second
	maxRate  = 1e12
	maxDelay = time.Minute
)

// number reads a number with a unit.
func number(s string, units []unit) (float64, error) {
	for _, u := range units {
		if digits, ok := strings.CutSuffix(strings.ToLower(s), u.name); ok {
			v, err := strconv.ParseFloat(digits, 64)
			if err != nil || math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
				break
			}
			return v * u.size, nil
		}
	}
	return 0, errors.New("no number with a unit")
}

// ParseRate reads a rate such as 10mbit; bytes per second.
func ParseRate(s string) (float64, error) {
	v, err := number(s, rateUnits)
	switch {
	case err != nil:
		return 0, fmt.Errorf("it is a rate, as in 10mbit or 500kbit (bits per second; kbps and mbps are bytes)")
	case v < minRate || v > maxRate:
		return 0, fmt.Errorf("it is not between 1kbit and 8tbit")
	}
	return v, nil
}

// ParseDelay reads a time such as 20ms.
func ParseDelay(s string) (time.Duration, error) {
	v, err := number(s, timeUnits)
	switch {
	case err != nil:
		return 0, fmt.Errorf("it is a time, as in 20ms, 1.5s or 300us")
	case v > maxDelay.Seconds():
		return 0, fmt.Errorf("it is above %v", maxDelay)
	}
	return time.Duration(v * float64(time.Second)), nil
}

// ParseLoss reads a share such as 0.5%; the result is between 0 and 1.
func ParseLoss(s string) (float64, error) {
	digits, ok := strings.CutSuffix(s, "%")
	v, err := strconv.ParseFloat(digits, 64)
	if !ok || err != nil || !(v >= 0 && v <= 100) {
		return 0, fmt.Errorf("it is a share of all packets, as in 0.5%%")
	}
	return v / 100, nil
}
