// SPDX-License-Identifier: Apache-2.0

// --traps: what the trapped calls cost.

package main

import (
	"errors"
	"fmt"
	"os"

	"umrun/intercept"
	"umrun/view"
)

// openMeter makes a meter that close writes to the file name; none for an empty one.
func openMeter(name string) (_ *intercept.Meter, close func() error, err error) {
	if name == "" {
		return nil, func() error { return nil }, nil
	}
	file, err := os.Create(name)
	if err != nil {
		return nil, nil, &view.Problem{Code: view.ExitConfig, What: fmt.Sprintf("--traps: %v", err), Err: err}
	}
	m := new(intercept.Meter)
	return m, func() error {
		_, werr := fmt.Fprintln(file, "call\tabout\tcalls\ttotal_us\tcpu_us\tp50_us\tp99_us")
		if werr == nil {
			_, werr = m.WriteTo(file)
		}
		if err := errors.Join(werr, file.Close()); err != nil {
			return fmt.Errorf("--traps: %w", err)
		}
		return nil
	}, nil
}
