package main

import (
	"fmt"
	"io"
	"slices"
)

// table collects the figures of all subjects, a row per question.
type table struct{ rows []*row }

type row struct {
	what          string
	cells         map[string]string // by column
	target, holds string
}

var columns = []string{"bare", "agent", "kubelet"}

func (t *table) row(what string) *row {
	i := slices.IndexFunc(t.rows, func(r *row) bool { return r.what == what })
	if i < 0 {
		t.rows = append(t.rows, &row{what: what, cells: map[string]string{}})
		i = len(t.rows) - 1
	}
	return t.rows[i]
}

// set enters what was measured of one column.
func (t *table) set(what, column, value string) *row {
	r := t.row(what)
	r.cells[column] = value
	return r
}

// target enters what the agent is to reach, and whether it does.
func (r *row) targeted(target, holds string) { r.target, r.holds = target, holds }

// print writes the table in Markdown.
func (t *table) print(w io.Writer, o options) {
	fmt.Fprintf(w, "\nmedians with 95 %% interval; %d samples, %d rounds, idle for %v\n\n", o.samples, o.rounds, o.idle)
	fmt.Fprintln(w, "| | bare CRI calls | agent | kubelet | target | holds |\n|---|---|---|---|---|---|")
	for _, r := range t.rows {
		fmt.Fprintf(w, "| %s |", r.what)
		for _, c := range columns {
			value := r.cells[c]
			if value == "" {
				value = "—"
			}
			fmt.Fprintf(w, " %s |", value)
		}
		fmt.Fprintf(w, " %s | %s |\n", r.target, r.holds)
	}
}
