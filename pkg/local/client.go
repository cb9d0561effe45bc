package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/timeline"
)

// Client asks the agent with a given root.
type Client struct {
	socket string
	http   http.Client
}

// NewClient prepares to ask; nothing is opened yet.
func NewClient(root string) *Client {
	socket := Socket(root)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: http.Client{Transport: &http.Transport{DialContext: dial}, Timeout: 30 * time.Second}}
}

// Report is all that the agent says now.
func (c *Client) Report(ctx context.Context) (r Report, err error) {
	return r, c.ask(ctx, http.MethodGet, "/pods", nil, &r)
}

// Timeline is how the pods that which names came to be as they are, and what they
// wait for: see timeline.All.
func (c *Client) Timeline(ctx context.Context, which string) (a timeline.Answer, err error) {
	return a, c.ask(ctx, http.MethodGet, "/debug/timeline?pod="+url.QueryEscape(which), nil, &a)
}

// Plan is what the agent would do for the pod.
func (c *Client) Plan(ctx context.Context, spec *v1.Pod) (p Plan, err error) {
	return p, c.ask(ctx, http.MethodPost, "/plan", spec, &p)
}

func (c *Client) ask(ctx context.Context, method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("ask the agent: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask the agent: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.explain(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return fmt.Errorf("ask the agent: %s", strings.TrimSpace(string(text)))
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("ask the agent: %w", err)
	}
	return nil
}

func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no agent answers at %s: is it running, with this --root-dir?", c.socket)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s may only be opened by root", c.socket)
	}
	return fmt.Errorf("ask the agent: %w", err)
}
