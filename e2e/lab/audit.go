package lab

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// auditPolicy logs what everybody does but the control plane itself and its
// administrator: watches when they begin and end, all else when it is done.
// Writes are logged with their bodies.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: None, userGroups: ["system:masters", "system:serviceaccounts:kube-system"]}
- {level: None, users: ["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler", "system:anonymous"]}
- {level: Request, verbs: [create, update, patch, delete]}
- {level: Metadata}
`

// Request is one line of the apiserver's audit log.
type Request struct {
	Time      time.Time // when it was received
	Stage     string    // ResponseComplete, or ResponseStarted of a watch
	User      string    // such as system:node:lab
	UserAgent string
	Verb      string // get, list, watch, create, update, patch, delete
	Resource  string // with the subresource, such as pods/status; empty for other paths
	Namespace string
	Name      string
	URI       string
	Code      int             // HTTP status; 0 if the client went away
	Body      json.RawMessage // of a write
}

// auditEvent is the part of audit.k8s.io/v1 Event that Request is made of.
type auditEvent struct {
	Stage, RequestURI, Verb, UserAgent string
	User                               struct{ Username string }
	ObjectRef                          struct{ Resource, Subresource, Namespace, Name string }
	ResponseStatus                     struct{ Code int }
	RequestReceivedTimestamp           time.Time
	RequestObject                      json.RawMessage
}

// Requests are those so far which the filter takes, in the order of their
// ends, those of the control plane itself and its administrator left out. A
// request is there a moment after its answer.
func (p *ControlPlane) Requests(filter func(Request) bool) ([]Request, error) {
	f, err := os.Open(p.files.auditLog)
	if err != nil {
		return nil, fmt.Errorf("read audit log: %w", err)
	}
	defer f.Close()
	var found []Request
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return found, nil // of a line half written nothing is known yet
		}
		if err != nil {
			return nil, fmt.Errorf("read audit log: %w", err)
		}
		var e auditEvent
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("read audit log: %w: %s", err, line)
		}
		if req := e.request(); filter(req) {
			found = append(found, req)
		}
	}
}

func (e *auditEvent) request() Request {
	resource := e.ObjectRef.Resource
	if e.ObjectRef.Subresource != "" {
		resource += "/" + e.ObjectRef.Subresource
	}
	return Request{
		Time: e.RequestReceivedTimestamp, Stage: e.Stage, User: e.User.Username, UserAgent: e.UserAgent,
		Verb: e.Verb, Resource: resource, Namespace: e.ObjectRef.Namespace, Name: e.ObjectRef.Name,
		URI: e.RequestURI, Code: e.ResponseStatus.Code, Body: e.RequestObject,
	}
}

// Write says whether the request was to change something.
func (r Request) Write() bool {
	return strings.Contains(" create update patch delete deletecollection ", " "+r.Verb+" ")
}

// String is the request in a line, for messages of tests.
func (r Request) String() string {
	return fmt.Sprintf("%s %s %s %s/%s: %d %s", r.User, r.Verb, r.Resource, r.Namespace, r.Name, r.Code, r.Body)
}
