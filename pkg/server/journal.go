package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The bounds of one question about the machine's logs.
const (
	journalTime     = 30 * time.Second
	journalServices = 4
	journalTail     = 100000
)

// logQuery is a question about the logs of services (behaviour row 1.20-15). All
// that comes from the caller is parsed, and none of it can become another
// argument of a program than the one that it is for.
type logQuery struct {
	services []string
	file     string // below the folder of logs; instead of services
	options  []string
}

// serviceName is what units of systemd are called.
var serviceName = regexp.MustCompile(`^[a-zA-Z0-9_.:@][a-zA-Z0-9_.:@-]{0,255}$`)

// parseLogQuery reads a request's query; nil where it asks nothing of the kind.
func parseLogQuery(q url.Values) (*logQuery, error) {
	known := []string{"query", "sinceTime", "untilTime", "tailLines", "pattern", "boot"}
	if !slices.ContainsFunc(known, q.Has) {
		return nil, nil
	}
	out := &logQuery{}
	var files []string
	for _, name := range q["query"] {
		if strings.ContainsAny(name, `/\`) {
			files = append(files, name)
		} else {
			out.services = append(out.services, strings.TrimSpace(name))
		}
	}
	err := errors.Join(out.addTimes(q), out.addNumbers(q), out.addPattern(q.Get("pattern")))
	for _, name := range out.services {
		if !serviceName.MatchString(name) {
			err = errors.Join(err, fmt.Errorf("query: %q is no service", name))
		}
	}
	switch {
	case err != nil:
	case len(files)+len(out.services) == 0:
		err = errors.New("query: it is needed, and names services or a file")
	case len(files) > 1 || len(files) == 1 && len(out.services)+len(out.options) > 0:
		err = errors.New("query: one file at a time, without services or other options")
	case len(out.services) > journalServices:
		err = fmt.Errorf("query: at most %d services", journalServices)
	case len(files) == 1:
		out.file = files[0]
	}
	return out, err
}

func (q *logQuery) addTimes(given url.Values) error {
	var times [2]time.Time
	for i, option := range []string{"since", "until"} {
		text := given.Get(option + "Time")
		if text == "" {
			continue
		}
		t, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return fmt.Errorf("%sTime: %w", option, err)
		}
		times[i] = t
		q.options = append(q.options, "--"+option+"="+t.UTC().Format("2006-01-02 15:04:05 UTC"))
	}
	if !times[0].IsZero() && !times[1].IsZero() && times[0].After(times[1]) {
		return errors.New("untilTime: must be after sinceTime")
	}
	return nil
}

func (q *logQuery) addNumbers(given url.Values) error {
	for _, o := range []struct {
		name, option string
		min, max     int
	}{{"tailLines", "--lines=", 0, journalTail}, {"boot", "--boot=", -1000, 0}} {
		text := given.Get(o.name)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < o.min || n > o.max {
			return fmt.Errorf("%s: %q is not a number from %d to %d", o.name, text, o.min, o.max)
		}
		q.options = append(q.options, o.option+strconv.Itoa(n))
	}
	return nil
}

func (q *logQuery) addPattern(text string) error {
	if text == "" {
		return nil
	}
	if _, err := syntax.Parse(text, syntax.Perl); err != nil || strings.ContainsRune(text, 0) {
		return fmt.Errorf("pattern: %w", cmp.Or(err, errors.New("no character may be NUL")))
	}
	q.options = append(q.options, "--grep="+text)
	return nil
}

// queryLogs answers questions about services; what asks for a file by its path
// goes to files.
func queryLogs(dir logFiles, files http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			http.Error(w, "query: "+err.Error(), http.StatusBadRequest)
			return
		}
		q, err := parseLogQuery(given)
		switch {
		case err != nil:
			http.Error(w, err.Error(), http.StatusBadRequest)
		case q == nil:
			files.ServeHTTP(w, r)
		case r.URL.Path != "/logs/":
			http.Error(w, "path not allowed in query mode", http.StatusNotAcceptable)
		case q.file != "":
			file := *r
			file.URL = &url.URL{Path: "/logs/" + strings.TrimPrefix(q.file, "/")}
			files.ServeHTTP(w, &file)
		default:
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			q.write(r.Context(), w, dir)
		}
	})
}

// write writes what the journal has of the services, and the log files of those
// of which it has nothing.
func (q *logQuery) write(ctx context.Context, w io.Writer, dir logFiles) {
	ctx, cancel := context.WithTimeout(ctx, journalTime)
	defer cancel()
	listed, _ := exec.CommandContext(ctx, "journalctl", "--field=_SYSTEMD_UNIT").Output() // without one all are files
	units := strings.Fields(string(listed))
	args := append([]string{"--utc", "--no-pager", "--output=short-precise"}, q.options...)
	var some bool
	for _, name := range q.services {
		if slices.Contains(units, name) || slices.Contains(units, name+".service") {
			args, some = append(args, "--unit="+name), true
		} else if len(q.options) > 0 {
			fmt.Fprintf(w, "\noptions are for services in the journal, which has nothing of %s\n", name)
		} else {
			dir.writeLogOf(w, name)
		}
	}
	if !some {
		return
	}
	journal := exec.CommandContext(ctx, "journalctl", args...)
	journal.Stdout, journal.Stderr = w, w
	var exit *exec.ExitError
	if err := journal.Run(); err != nil && !errors.As(err, &exit) { // what it says itself is written
		fmt.Fprintf(w, "\nerror: journal output not available: %v\n", err)
	}
}

// writeLogOf writes the file that a service without a journal usually writes.
func (dir logFiles) writeLogOf(w io.Writer, service string) {
	for _, name := range []string{service, service + ".log", service + "/" + service + ".log"} {
		f, err := dir.Open(name)
		if err != nil {
			continue
		}
		info, err := f.Stat()
		if err == nil && !info.IsDir() {
			_, err = io.Copy(w, f)
			_ = f.Close() // nothing was written to it
			if err != nil {
				fmt.Fprintf(w, "\nerror getting log for %s: %v\n", service, err)
			}
			return
		}
		_ = f.Close() // likewise
	}
	fmt.Fprintf(w, "\nlog not found for %s\n", service)
}
