package cri

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// The waiting reasons that this package gives (behaviour row 1.3-18).
const (
	ReasonConfig       = "CreateContainerConfigError"
	ReasonCreate       = "CreateContainerError"
	ReasonRun          = "RunContainerError"
	ReasonPull         = "ErrImagePull"
	ReasonNeverPull    = "ErrImageNeverPull"
	ReasonInvalidImage = "InvalidImageName"
	ReasonInspect      = "ImageInspectError"
	ReasonRegistry     = "RegistryUnavailable"
	ReasonSignature    = "SignatureValidationFailed"
)

// Error is a failed call, classified where it entered.
type Error struct {
	// Verb and object: "create container web".
	Doing string
	// Reason is the waiting reason people know, or "".
	Reason string
	// Message is for people: the runtime's own words where it has spoken.
	Message string
	// Uncertain says that the runtime may have done what was asked.
	Uncertain bool
	Err       error
}

func (e *Error) Error() string {
	if e.Err == nil {
		return e.Doing + ": " + e.Message
	}
	return fmt.Sprintf("%s: %v", e.Doing, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// failed wraps err of a call that changes nothing in the runtime.
func failed(reason, doing string, err error) *Error {
	said := message(err)
	if code(err) == codes.DeadlineExceeded {
		said = "the runtime did not answer in time: " + said
	}
	return &Error{Doing: doing, Reason: reason, Message: said, Err: err}
}

// ConfigError says that the container cannot be made as its spec is now
// (behaviour row 1.3-18).
func ConfigError(container string, err error) error {
	return failed(ReasonConfig, "configure container "+container, err)
}

// mutated wraps err of a call that changes the runtime's state.
func mutated(reason, doing string, err error) *Error {
	e := failed(reason, doing, err)
	e.Uncertain = uncertain(err)
	return e
}

// uncertain says whether a changing call that ended in err may have worked.
func uncertain(err error) bool {
	switch code(err) {
	case codes.DeadlineExceeded, codes.Unavailable, codes.Canceled, codes.AlreadyExists:
		return true
	}
	// containerd answers a repeated create with code Unknown and `name "x" is
	// reserved for "id"`, and a repeated start with "is already in starting
	// state": an earlier try got through, or still goes on.
	return strings.Contains(err.Error(), "is reserved for") || strings.Contains(err.Error(), "is already in starting state")
}

func code(err error) codes.Code {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	}
	return status.Code(err)
}

// message is the runtime's words without gRPC's wrapping.
func message(err error) string {
	var s interface{ GRPCStatus() *status.Status }
	if errors.As(err, &s) {
		return s.GRPCStatus().Message()
	}
	return err.Error()
}

// Failure is err as the pod's value knows it, or nil for nil. A call that was
// given up before it reached the runtime is Canceled; one that was given up
// later is Uncertain.
func Failure(err error) *pod.Failure {
	if err == nil {
		return nil
	}
	var e *Error
	if !errors.As(err, &e) {
		return &pod.Failure{Message: message(err), Canceled: code(err) == codes.Canceled}
	}
	return &pod.Failure{
		Reason:    e.Reason,
		Message:   e.Message,
		Uncertain: e.Uncertain,
		Canceled:  !e.Uncertain && code(err) == codes.Canceled,
	}
}

// gone says that the object asked for does not exist.
func gone(err error) bool { return status.Code(err) == codes.NotFound }
