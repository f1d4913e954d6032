// SPDX-License-Identifier: Apache-2.0

// Databases of the table: Redis and PostgreSQL with pgbench.

package viewtest_test

import (
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"umrun/view/viewtest"
)

var databases = []program{
	{name: "Redis", version: words("redis-server --version"), needs: []string{"redis-cli", "redis-benchmark"}, steps: []step{
		{name: "server", quick: true, did: "server: a value of 20 MiB by SHA-256, `redis-benchmark` with 50 connections, pipelined, over IPv4 and IPv6; the count of keys after it", do: func(x *try) {
			x.serve(6379, x.view(redisServer...))
			redis(x, x.peer, "{self4}")
			redis(x, x.peer, "{self6}")
		}},
		{name: "client", did: "client of a server behind the peer: the same", do: func(x *try) {
			x.answer(6379, x.peer(redisServer...))
			redis(x, x.view, "10.77.0.1")
			redis(x, x.view, "fd77::1")
		}},
		{name: "replica", did: "server and client: a replica in the view of a master behind the peer, 20 MiB and 10,000 keys, then live writes", do: redisReplica},
		{name: "loopback", did: "server and client on the view's loopback: `redis-benchmark`", do: func(x *try) {
			x.ok(x.view("sh", "-ec", strings.Join(redisServer, " ")+` >/dev/null & while ! redis-cli ping >/dev/null 2>&1; do sleep 0.05; done
redis-benchmark -q -n 20000 -c 50 -P 8 -r 1000 -t set,get; redis-cli -h ::1 dbsize | grep -q '^1000$'; redis-cli shutdown nosave; wait`))
		}},
	}},
	{name: "PostgreSQL", version: []string{postgresBin + "postgres", "--version"}, needs: []string{postgresBin + "pgbench"}, steps: []step{
		{name: "server", did: "server: 100,000 rows in by COPY over IPv4 and IPv6 and their MD5 from the server, LISTEN/NOTIFY; `pgbench` with 8 clients, no transaction failed, the books balance", do: func(x *try) {
			x.serve(5432, x.view(x.postgres()...))
			postgres(x, x.peer, "{self4}")
			postgres(x, x.peer, "{self6}")
		}},
		{name: "client", did: "client of a server behind the peer: the same", do: func(x *try) {
			x.answer(5432, x.peer(x.postgres()...))
			postgres(x, x.view, "10.77.0.1")
			postgres(x, x.view, "fd77::1")
		}},
		{name: "loopback", did: "server and client on the view's loopback: `pgbench` with 8 clients, no transaction failed, the books balance", do: func(x *try) {
			start := strings.Join(x.postgres(), " ")
			bench := pgbench("127.0.0.1")
			out := x.ok(x.view("sh", "-ec", start+` & pg=$!; while ! `+postgresBin+`pg_isready -q -h ::1; do sleep 0.1; done
`+bench+`; kill $pg; wait $pg || true`))
			balanced(x, out)
		}},
	}},
}

var redisServer = words("redis-server --port 6379 --protected-mode no --appendonly no --enable-debug-command yes --save --dir {home} --bind * -::*")

func redis(x *try, side func(...string) *viewtest.Cmd, host string) {
	x.Helper()
	cli := "redis-cli -h " + host + " "
	x.want(x.ok(side("sh", "-ec", cli+"flushall; "+cli+"-x set big <{big}; "+cli+"strlen big")), "OK\nOK\n"+strconv.Itoa(viewtest.BigSize)+"\n")
	x.want(x.ok(side("sh", "-ec", cli+"get big | head -c "+strconv.Itoa(viewtest.BigSize)+" | sha256sum")), "{bigsum}  -\n")
	// 20,000 writes to 1000 keys miss one with a chance of one in a million.
	out := x.ok(side(words("redis-benchmark -h " + host + " -q -n 20000 -c 50 -P 8 -r 1000 -t set,get")...))
	x.want(out, `/SET: [\d.]+ requests per second(?s:.*)GET: [\d.]+ requests per second/`)
	x.want(x.ok(side(words(cli+"dbsize")...)), "1001\n")
}

func redisReplica(x *try) {
	x.answer(6379, x.peer(redisServer...))
	cli := func(host, port string, args ...string) string {
		x.Helper()
		return x.ok(x.peer(append([]string{"redis-cli", "-h", host, "-p", port}, args...)...))
	}
	x.ok(x.peer("sh", "-c", "redis-cli -x set big <{big}"))
	cli("10.77.0.1", "6379", "debug", "populate", "10000", "key", "100")
	view := strings.ReplaceAll(strings.Join(redisServer, " "), "6379", "6380")
	x.serve(6380, x.view(words(view+" --dbfilename replica.rdb --replicaof 10.77.0.1 6379")...))
	x.eventually(20*time.Second, func() string { return cli("{self4}", "6380", "dbsize") }, "10001\n")
	for i := range 50 {
		cli("10.77.0.1", "6379", "set", "live", strconv.Itoa(i))
	}
	x.eventually(5*time.Second, func() string { return cli("{self6}", "6380", "get", "live") }, "49\n")
	x.want(x.ok(x.peer("sh", "-c", "redis-cli -h {self4} -p 6380 get big | head -c "+strconv.Itoa(viewtest.BigSize)+" | sha256sum")), "{bigsum}  -\n")
}

// eventually asks until the answer is right.
func (x *try) eventually(d time.Duration, ask func() string, want string) {
	x.Helper()
	viewtest.Eventually(x, d, func() error {
		if got := ask(); got != want {
			return fmt.Errorf("got %q, want %q", got, want)
		}
		return nil
	})
}

// postgresBin is where Debian has the programs of the server's own version.
var postgresBin = func() string {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(dirs) == 0 {
		return "/usr/lib/postgresql/bin/"
	}
	return dirs[len(dirs)-1] + "/"
}()

// postgres makes a cluster and returns the command of its server.
func (x *try) postgres() []string {
	x.Helper()
	x.ok(x.here(postgresBin+"initdb", "-D", "{home}/pg", "-A", "trust", "-U", "lab", "--no-sync", "--locale=C"))
	x.ok(x.here("sh", "-c", `printf 'host all all 10.77.0.0/16 trust\nhost all all fd77::/16 trust\n' >>{home}/pg/pg_hba.conf`))
	return words(postgresBin + "postgres -D {home}/pg -k {home} -c listen_addresses=* -c dynamic_shared_memory_type=mmap -c fsync=off -c log_min_messages=error")
}

// pgbench is a shell's command for a short run, and the books after it.
func pgbench(host string) string {
	b := postgresBin + "pgbench -h " + host + " -U lab "
	return b + "-i -q -s 1 postgres 2>/dev/null; " + b + "-c 8 -j 2 -T 2 -n postgres; " + postgresBin + "psql -h " + host + ` -U lab -Atc '
select (select sum(bbalance) from pgbench_branches) = (select sum(delta) from pgbench_history) and
	(select sum(abalance) from pgbench_accounts) = (select sum(tbalance) from pgbench_tellers), count(*) from pgbench_history' postgres`
}

// balanced judges what pgbench printed.
func balanced(x *try, out string) {
	x.Helper()
	done := regexp.MustCompile(`number of transactions actually processed: (\d+)\nnumber of failed transactions: 0 (?s:.*)\nt\|(\d+)\n$`).FindStringSubmatch(out)
	if done == nil || done[1] != done[2] || len(done[1]) < 3 {
		x.Errorf("the books do not balance: %s", out)
	}
}

func postgres(x *try, side func(...string) *viewtest.Cmd, host string) {
	x.Helper()
	var rows strings.Builder
	sum := md5.New()
	for i := range 100000 {
		fmt.Fprintf(&rows, "%d\trow %d\n", i, i*i)
		fmt.Fprintf(sum, "row %d", i*i)
	}
	psql := postgresBin + "psql -X -v ON_ERROR_STOP=1 -h " + host + " -U lab -At postgres "
	// A server that still starts up refuses a login, not a connection.
	wait := "while ! " + postgresBin + "pg_isready -q -h " + host + "; do sleep 0.1; done; "
	x.want(x.ok(in(side("sh", "-ec", wait+psql+"-qc 'drop table if exists t; create table t (n int primary key, s text)'; "+psql+"-c 'copy t from stdin'; "+
		psql+`-c "select md5(string_agg(s, '' order by n)) from t"; `+psql+`-c "listen x; notify x, 'told'" -c "select 1"`), rows.String())),
		"/^COPY 100000\n"+hex.EncodeToString(sum.Sum(nil))+"\nLISTEN\nNOTIFY\n(?s:.*)\"x\" with payload \"told\" received from server process/")
	balanced(x, x.ok(side("sh", "-ec", pgbench(host))))
}
