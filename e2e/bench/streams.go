package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	clientspdy "k8s.io/client-go/transport/spdy"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// The log that is followed: so many lines of so many bytes, as printed.
const (
	logLines = 500_000
	lineSize = 128
)

// pauseBetween is how long the runtime is left to clear away after a command: what
// it does then would be counted to the next one.
const pauseBetween = 60 * time.Millisecond

// streams runs commands in a container, through the subject and by the runtime's
// own URL in turns, and follows a long log that is in the page cache.
func (b *bed) streams(ctx context.Context) error {
	pod := podFor(b.name(), nodeName)
	pod.Spec.Containers[0].Command = []string{"sh", "-c",
		fmt.Sprintf("yes %s | head -n %d; trap 'exit 0' TERM; sleep 100000 & wait", strings.Repeat("x", lineSize-1), logLines)}
	x := b.watch.running(pod.Name)
	ready, _, err := b.cluster.createPod(ctx, pod)
	if err != nil {
		return err
	}
	if _, err := came(ctx, ready, "Ready"); err != nil {
		return err
	}
	e, err := x.wait(ctx)
	if err != nil {
		return err
	}
	if err := b.execs(ctx, pod.Name, e.id); err != nil {
		return err
	}
	if err := b.follows(ctx, pod.Name); err != nil {
		return err
	}
	_, err = b.cluster.delete(ctx, pod.Name)
	return err
}

// reach is how the node's API and the runtime's streaming server are reached.
func (b *bed) reach() (*http.Transport, error) {
	config, err := b.cluster.RESTConfig(b.cluster.AdminKubeconfig())
	if err != nil {
		return nil, err
	}
	// The node's certificate names its address, not the loopback's.
	config.TLSClientConfig.Insecure, config.CAFile, config.CAData = true, "", nil
	tls, err := rest.TLSConfigFor(config)
	if err != nil {
		return nil, err
	}
	return &http.Transport{TLSClientConfig: tls, DialContext: b.Network.Dial}, nil
}

func (b *bed) execs(ctx context.Context, pod, id string) error {
	var direct, through []float64
	t, err := b.reach()
	if err != nil {
		return err
	}
	q := url.Values{"command": {"true"}, "output": {"1"}}
	for range max(b.o.samples, 200) { // the runtime's own differ by more than what is measured
		<-time.After(pauseBetween)
		began := time.Now()
		r, err := b.CRI.Runtime.Exec(ctx, &cri.ExecRequest{ContainerId: id, Cmd: []string{"true"}, Stdout: true})
		if err != nil {
			return fmt.Errorf("exec: %w", err)
		}
		if err := runCommand(ctx, t, r.Url); err != nil {
			return err
		}
		direct = append(direct, milliseconds(time.Since(began)))
		<-time.After(pauseBetween)
		began = time.Now()
		if err := runCommand(ctx, t, "https://"+nodeAPI+"/exec/"+benchSpace+"/"+pod+"/"+containerName+"?"+q.Encode()); err != nil {
			return err
		}
		through = append(through, milliseconds(time.Since(began)))
	}
	const what = "exec of true, from the request to its exit code"
	who := b.subject.name
	b.table.set(what, who, estimate(median, through).text("ms")).cells["bare"] = estimate(median, direct).text("ms")
	f := estimate(ratio, through, direct)
	row := b.table.set("— of the runtime's own", who, f.text("×"))
	if b.floor != nil {
		row.targeted("≤ 1.15 ×", f.atMost(1.15))
	}
	return nil
}

// runCommand runs what the URL says, over SPDY, as an apiserver does.
func runCommand(ctx context.Context, t *http.Transport, address string) error {
	to, err := url.Parse(address)
	if err != nil {
		return err
	}
	trip, err := spdy.NewRoundTripperWithConfig(spdy.RoundTripperConfig{UpgradeTransport: t})
	if err != nil {
		return err
	}
	e, err := remotecommand.NewSPDYExecutorForTransports(trip, clientspdy.NewUpgraderForStreaming(trip), http.MethodPost, to)
	if err != nil {
		return err
	}
	if err := e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: io.Discard}); err != nil {
		return fmt.Errorf("exec at %s: %w", to.Host, err)
	}
	return nil
}

// follows measures how fast a log comes that is followed from its beginning, as
// an apiserver does, over HTTP/2.
func (b *bed) follows(ctx context.Context, pod string) error {
	t, err := b.reach()
	if err != nil {
		return err
	}
	t.ForceAttemptHTTP2 = true
	defer t.CloseIdleConnections()
	client := &http.Client{Transport: t}
	var rates []float64
	const size = logLines * lineSize
	follow := func() error {
		began := time.Now()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet,
			fmt.Sprintf("https://%s/containerLogs/%s/%s/%s?follow=true&limitBytes=%d", nodeAPI, benchSpace, pod, containerName, size), nil)
		if err != nil {
			return err
		}
		answer, err := client.Do(req)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		n, err := io.Copy(io.Discard, answer.Body)
		if err != nil || n != size {
			return fmt.Errorf("follow the log of %s: %s: %d of %d bytes: %v", pod, answer.Status, n, size, err)
		}
		rates = append(rates, size/1e6/time.Since(began).Seconds())
		return nil
	}
	if err := follow(); err != nil { // until all is printed
		return err
	}
	rates = nil
	for range max(b.o.rounds, 40) { // 0.3 s each; a connection of long standing is what people follow by
		if err := follow(); err != nil {
			return err
		}
	}
	f := estimate(median, rates)
	row := b.table.set(fmt.Sprintf("a log followed from the page cache, lines of %d bytes", lineSize), b.subject.name, f.text("MB/s"))
	if b.floor != nil {
		row.targeted("≥ 200 MB/s", f.atLeast(200))
	}
	return nil
}
