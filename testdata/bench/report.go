// SPDX-License-Identifier: Apache-2.0

// What is printed.

package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// A report prints tables as they become known.
type report struct {
	ok bool // no row is below its target
}

func (r *report) head(o options) {
	r.ok = true
	var u unix.Utsname
	_ = unix.Uname(&u) // the name stays empty
	fmt.Printf("umrun bench, %s: Linux %s, %d CPUs, %s; %d pairs of %v, congestion control %s\n",
		time.Now().Format(time.DateOnly), unix.ByteSliceToString(u.Release[:]), runtime.NumCPU(), runtime.Version(), o.rounds, o.time, o.cc)
	if o.quick {
		fmt.Println("-quick: this shows that it works, not how fast")
	}
}

// spread is a median with the smallest and the largest.
func spread(v []float64) string {
	v = slices.Sorted(slices.Values(v))
	return fmt.Sprintf("%s [%s..%s]", number(median(v)), number(v[0]), number(v[len(v)-1]))
}

func number(v float64) string {
	if v < 10 {
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// pairs prints samples of both sides, umrun first.
func (r *report) pairs(title string, todo []row, got [][2][]sample) {
	fmt.Printf("\n%s\nmedian [min..max]; the ratio is the median of the pairs'\n", title)
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "\tumrun\tnative\tratio\ttarget\tp50 µs\tCPU s/GB or ms/op")
	var details []string
	for i, row := range todo {
		for k, side := range [2]string{"umrun", "native"} {
			if last := got[i][k][len(got[i][k])-1]; last.Text != "" {
				details = append(details, fmt.Sprintf("  %s, %s, µs of the last sample:%s", row.title, side, last.Text))
			}
		}
		var v, p50, cost [2][]float64
		for k := range 2 {
			for _, s := range got[i][k] {
				v[k] = append(v[k], row.value(s))
				p50[k] = append(p50[k], s.P50)
				if row.unit == "Mb/s" {
					cost[k] = append(cost[k], s.CPU/(float64(s.Bytes)/1e9))
				} else {
					cost[k] = append(cost[k], s.CPU/float64(s.Ops)*1e3)
				}
			}
		}
		var ratio []float64
		for j := range v[0] {
			ratio = append(ratio, v[0][j]/v[1][j])
		}
		verdict := ""
		if row.target > 0 {
			verdict = fmt.Sprintf("%.2f ok", row.target)
			if median(ratio) < row.target {
				verdict, r.ok = fmt.Sprintf("%.2f MISSED", row.target), false
			}
		}
		latency := ""
		if p := median(p50[0]); p > 0 {
			latency = fmt.Sprintf("%.0f / %.0f", p, median(p50[1]))
		}
		fmt.Fprintf(t, "%s, %s\t%s\t%s\t%s\t%s\t%s\t%.2f / %.2f\n", row.title, row.unit, spread(v[0]), spread(v[1]), spread(ratio),
			verdict, latency, median(cost[0]), median(cost[1]))
	}
	t.Flush()
	for _, d := range details {
		fmt.Println(d)
	}
}

// facts prints lines of a name and a text.
func (r *report) facts(title string, lines ...[2]string) {
	fmt.Printf("\n%s\n", title)
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	defer t.Flush()
	for _, l := range lines {
		fmt.Fprintln(t, strings.Join(l[:], "\t"))
	}
}
