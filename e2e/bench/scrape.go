package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"time"
)

// nodeAPI is where the subject serves, in the lab's network.
const nodeAPI = "127.0.0.1:10250"

// apart is how far scrapes are from each other: the agent gives one that comes
// within a second what the one before was given.
const apart = 1100 * time.Millisecond

// scraped are the paths that monitoring asks a node for, with the targets of the
// time that 100 pods take, in ms; 0 for none.
var scraped = []struct {
	path          string
	median, worst float64
}{
	{"/stats/summary", 25, 60},
	{"/stats/summary?only_cpu_and_memory=true", 0, 0},
	{"/metrics/resource", 0, 0},
	{"/metrics/cadvisor", 0, 0},
}

// stats asks for what the node and its pods use, path by path, and then for all
// of it every 10 s, as monitoring does.
func (b *bed) stats(ctx context.Context) error {
	if err := b.restartAgent(ctx); err != nil {
		return err
	}
	n := slices.Max(b.o.pods)
	if err := b.fill(ctx, n); err != nil {
		return err
	}
	if err := pause(ctx, calm); err != nil {
		return err
	}
	client, who, pid := b.scraper(), b.subject.name, b.agent.Pid()
	for _, s := range scraped {
		var took []float64
		var size int
		before, err := cpuTime(pid)
		if err != nil {
			return err
		}
		for range b.o.samples {
			began := time.Now()
			bytes, err := scrape(ctx, client, s.path)
			if err != nil {
				return err
			}
			took, size = append(took, milliseconds(time.Since(began))), bytes
			if err := pause(ctx, apart); err != nil {
				return err
			}
		}
		after, err := cpuTime(pid)
		if err != nil {
			return err
		}
		half, worst := estimate(median, took), estimate(p99, took)
		p50 := b.table.set(fmt.Sprintf("%s with %d pods, p50", s.path, n), who, fmt.Sprintf("%s, %d KiB", half.text("ms"), size>>10))
		last := b.table.set(fmt.Sprintf("%s with %d pods, p99", s.path, n), who, worst.text("ms"))
		// With what the subject does meanwhile on its own.
		b.table.set(fmt.Sprintf("%s with %d pods, processor time of each", s.path, n), who, fmt.Sprintf("%.0f ms", milliseconds(after-before)/float64(len(took))))
		if b.floor != nil && s.median > 0 {
			p50.targeted(fmt.Sprintf("≤ %.0f ms", s.median), half.atMost(s.median))
			last.targeted(fmt.Sprintf("≤ %.0f ms", s.worst), worst.atMost(s.worst))
		}
	}
	return b.monitored(ctx, client, n)
}

// monitored watches the subject while all paths are asked for every 10 s, one
// some time after the other, as several monitors would.
func (b *bed) monitored(ctx context.Context, client *http.Client, n int) error {
	const every = 10 * time.Second
	pid, who := b.agent.Pid(), b.subject.name
	before, err := cpuTime(pid)
	if err != nil {
		return err
	}
	began := time.Now()
	for time.Since(began) < b.o.idle {
		for _, s := range scraped {
			if _, err := scrape(ctx, client, s.path); err != nil {
				return err
			}
			if err := pause(ctx, every/time.Duration(len(scraped))); err != nil {
				return err
			}
		}
	}
	after, err := cpuTime(pid)
	if err != nil {
		return err
	}
	percent := func(d time.Duration) float64 { return 100 * d.Seconds() / time.Since(began).Seconds() }
	used := figure{percent(after - before), percent(max(0, after-before-clockTick)), percent(after - before + clockTick)}
	cpu := b.table.set(fmt.Sprintf("all of them every 10 s with %d pods, of one core", n), who, used.text("%"))
	m, err := memoryOf(pid)
	if err != nil {
		return err
	}
	ram := b.table.set(fmt.Sprintf("RssAnon with %d pods, so asked (VmRSS)", n), who, m.text())
	if b.floor == nil {
		return nil
	}
	empty, err := emptyMemory(filepath.Join(b.dir, "empty"))
	if err != nil {
		return fmt.Errorf("measure the empty program: %w", err)
	}
	cpu.targeted("≤ 1 %", used.atMost(1))
	held := figure{m.anonymous, m.anonymous, m.anonymous}
	ram.targeted("≤ empty + 50 MiB", held.atMost(empty.anonymous+50))
	return nil
}

// scraper asks the subject, which lets anybody in, over one connection.
func (b *bed) scraper() *http.Client {
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // its own certificate
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return b.Network.Dial(ctx, network, address)
		}}}
}

// scrape returns how many bytes the answer has.
func scrape(ctx context.Context, client *http.Client, path string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+nodeAPI+path, nil)
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	return int(n), err
}
