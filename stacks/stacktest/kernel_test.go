// SPDX-License-Identifier: Apache-2.0

// The cases against the kernel.

package stacktest_test

import (
	"testing"

	"go.uber.org/goleak"

	"umrun/stacks/stacktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestKernel(t *testing.T) { stacktest.Run(t, stacktest.KernelPair()) }
