// SPDX-License-Identifier: Apache-2.0

// Level IPPROTO_TCP.

package sockapi

import "golang.org/x/sys/unix"

const (
	noFastOpen = "no TCP Fast Open: programs connect and send"
	noRepair   = "a connection cannot be taken over"
	noSigned   = "segments cannot be signed"
)

var solTCP = []Option{
	{Name: "TCP_NODELAY", Number: unix.TCP_NODELAY, Access: Both, Support: Full},
	{Name: "TCP_MAXSEG", Number: unix.TCP_MAXSEG, Access: Both, Support: Full},
	{Name: "TCP_CORK", Number: unix.TCP_CORK, Access: Both, Support: Full},
	{Name: "TCP_KEEPIDLE", Number: unix.TCP_KEEPIDLE, Access: Both, Support: Full},
	{Name: "TCP_KEEPINTVL", Number: unix.TCP_KEEPINTVL, Access: Both, Support: Full},
	{Name: "TCP_KEEPCNT", Number: unix.TCP_KEEPCNT, Access: Both, Support: Full},
	{Name: "TCP_SYNCNT", Number: unix.TCP_SYNCNT, Access: Both, Support: Full},
	{Name: "TCP_LINGER2", Number: unix.TCP_LINGER2, Access: Both, Support: Full},
	{Name: "TCP_DEFER_ACCEPT", Number: unix.TCP_DEFER_ACCEPT, Access: Both, Support: Full},
	{Name: "TCP_WINDOW_CLAMP", Number: unix.TCP_WINDOW_CLAMP, Access: Both, Support: Part, Gap: "bounds the receive buffer"},
	{Name: "TCP_INFO", Number: unix.TCP_INFO, Access: Get, Shape: Opaque, Support: Part, Gap: "what the stack does not count (pacing, delivery rate, times limited) is 0"},
	{Name: "TCP_QUICKACK", Number: unix.TCP_QUICKACK, Access: Both, Support: Part, Gap: "acknowledgements wait for some milliseconds, whatever it says"},
	{Name: "TCP_CONGESTION", Number: unix.TCP_CONGESTION, Access: Both, Shape: Text, Support: Part, Gap: "cubic and reno"},
	no("TCP_MD5SIG", unix.TCP_MD5SIG, noSigned),
	no("TCP_COOKIE_TRANSACTIONS", unix.TCP_COOKIE_TRANSACTIONS, "Linux has dropped it"),
	{Name: "TCP_THIN_LINEAR_TIMEOUTS", Number: unix.TCP_THIN_LINEAR_TIMEOUTS, Access: Both, Support: Kept},
	{Name: "TCP_THIN_DUPACK", Number: unix.TCP_THIN_DUPACK, Access: Both, Support: Kept},
	{Name: "TCP_USER_TIMEOUT", Number: unix.TCP_USER_TIMEOUT, Access: Both, Support: Full},
	{Name: "TCP_REPAIR", Number: unix.TCP_REPAIR, Access: Both, Support: Full, Gap: capability},
	{Name: "TCP_REPAIR_QUEUE", Number: unix.TCP_REPAIR_QUEUE, Access: Both, Support: Full, Gap: capability},
	{Name: "TCP_QUEUE_SEQ", Number: unix.TCP_QUEUE_SEQ, Access: Both, Support: Full, Gap: capability},
	no("TCP_REPAIR_OPTIONS", unix.TCP_REPAIR_OPTIONS, noRepair),
	no("TCP_FASTOPEN", unix.TCP_FASTOPEN, noFastOpen),
	{Name: "TCP_TIMESTAMP", Number: unix.TCP_TIMESTAMP, Access: Both, Shape: Varying, Support: Full},
	{Name: "TCP_NOTSENT_LOWAT", Number: unix.TCP_NOTSENT_LOWAT, Access: Both, Support: Part, Gap: "poll shows POLLOUT while the placeholder has room"},
	{Name: "TCP_CC_INFO", Number: unix.TCP_CC_INFO, Access: Get, Shape: Opaque, Support: Full, Gap: "reno and cubic have none"},
	no("TCP_SAVE_SYN", unix.TCP_SAVE_SYN, "not modelled"),
	no("TCP_SAVED_SYN", unix.TCP_SAVED_SYN, "not modelled"),
	{Name: "TCP_REPAIR_WINDOW", Number: unix.TCP_REPAIR_WINDOW, Access: Both, Support: Full, Gap: capability},
	no("TCP_FASTOPEN_CONNECT", unix.TCP_FASTOPEN_CONNECT, noFastOpen),
	{Name: "TCP_ULP", Number: unix.TCP_ULP, Access: Both, Shape: Text, Support: Refused, Errno: unix.ENOENT, Gap: "no kernel TLS: programs encrypt themselves"},
	no("TCP_MD5SIG_EXT", unix.TCP_MD5SIG_EXT, noSigned),
	no("TCP_FASTOPEN_KEY", unix.TCP_FASTOPEN_KEY, noFastOpen),
	no("TCP_FASTOPEN_NO_COOKIE", unix.TCP_FASTOPEN_NO_COOKIE, noFastOpen),
	no("TCP_ZEROCOPY_RECEIVE", unix.TCP_ZEROCOPY_RECEIVE, "what is received lies in an AF_UNIX socket"),
	no("TCP_INQ", unix.TCP_INQ, "not modelled"),
	no("TCP_TX_DELAY", unix.TCP_TX_DELAY, "not modelled"),
	no("TCP_AO_ADD_KEY", 38, noSigned),
	no("TCP_AO_DEL_KEY", 39, noSigned),
	no("TCP_AO_INFO", 40, noSigned),
	no("TCP_AO_GET_KEYS", 41, noSigned),
	no("TCP_AO_REPAIR", 42, noRepair),
	{Name: "TCP_IS_MPTCP", Number: 43, Access: Get, Support: Full},
	no("TCP_RTO_MAX_MS", 44, "not modelled"),
	no("TCP_RTO_MIN_US", 45, "not modelled"),
	no("TCP_DELACK_MAX_US", 46, "not modelled"),
}
