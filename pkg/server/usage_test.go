package server

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"runtime/pprof"
	"strings"
	"testing"
	"time"
)

// ours has the label of the goroutines of the server under test; those that they
// start inherit it. The libraries of clients and of the made-up runtime leave
// some of their own behind, in the same process.
var ours = pprof.WithLabels(context.Background(), pprof.Labels("of", "server"))

// usage is how many goroutines and descriptors the server has.
func (n *node) usage() (goroutines, files int) {
	n.t.Helper()
	goroutines, _ = stacks(n.t)
	ports := map[string]bool{}
	for _, address := range []string{n.runtime, n.address} {
		if u, err := url.Parse(address); err == nil {
			ports[u.Port()] = true
		}
	}
	own, err := url.Parse(n.url)
	n.must(err)
	held := map[string]bool{}
	for _, s := range sockets(n.t) {
		held[s.inode] = s.local == own.Port() || ports[s.remote]
	}
	for _, link := range opened(n.t) {
		inode, isSocket := strings.CutPrefix(link, "socket:[")
		if isSocket && held[strings.TrimSuffix(inode, "]")] || strings.HasPrefix(link, n.logs) || strings.Contains(link, "inotify") {
			files++
		}
	}
	return goroutines, files
}

// settles waits until there are no more of them than before.
func (n *node) settles(goroutines, files int) {
	n.t.Helper()
	for late := time.Now().Add(60 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		g, f := n.usage()
		if g <= goroutines && f <= files {
			return
		}
		if time.Now().After(late) {
			_, text := stacks(n.t)
			n.t.Fatalf("%d goroutines became %d, %d descriptors %d\n%s", goroutines, g, files, f, text)
		}
	}
}

// waitsForReply is where the library of SPDY waits for the answer to a stream
// for half a minute, also when its connection has ended. It ends by itself.
const waitsForReply = "spdystream.(*Stream).WaitTimeout"

// stacks counts the server's goroutines and shows where they are.
func stacks(t testing.TB) (count int, text string) {
	t.Helper()
	var profile strings.Builder
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
		t.Fatal(err)
	}
	for group := range strings.SplitSeq(profile.String(), "\n\n") {
		if !strings.Contains(group, `# labels: {"of":"server"}`) || strings.Contains(group, waitsForReply) {
			continue
		}
		var these int
		if _, err := fmt.Sscan(group[strings.LastIndexByte(group[:strings.Index(group, " @")], '\n')+1:], &these); err != nil {
			t.Fatalf("%v in %s", err, group)
		}
		count += these
		text += group + "\n\n"
	}
	return count, text
}

// socket is one of this process or its peers, by its ports.
type socket struct{ local, remote, inode string }

// sockets are those of IPv4 over TCP.
func sockets(t testing.TB) (out []socket) {
	t.Helper()
	table, err := os.ReadFile("/proc/self/net/tcp")
	if err != nil {
		t.Error(err)
	}
	port := func(hex string) string {
		var address, number int
		if _, err := fmt.Sscanf(hex, "%X:%X", &address, &number); err != nil {
			return "" // the table's heading
		}
		return fmt.Sprint(number)
	}
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 9 {
			out = append(out, socket{local: port(f[1]), remote: port(f[2]), inode: f[9]})
		}
	}
	return out
}

// opened is what this process has open.
func opened(t testing.TB) (links []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if link, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil { // some are closed meanwhile
			links = append(links, link)
		}
	}
	return links
}

// established says whether this process still holds the server's end of a
// connection from address.
func established(t *testing.T, address string) bool {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Error(err)
	}
	for _, s := range sockets(t) {
		if s.remote == port && s.inode != "0" { // inode 0: nobody's
			return true
		}
	}
	return false
}
