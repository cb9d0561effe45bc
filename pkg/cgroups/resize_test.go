package cgroups

import "testing"

func TestGreater(t *testing.T) {
	for _, tt := range []struct {
		name       string
		a, b, want Values
	}{
		{"each", Values{Shares: 10, Quota: 2000, Period: 100, Memory: 5}, Values{Shares: 5, Quota: 3000, Period: 100, Memory: 4}, Values{Shares: 10, Quota: 3000, Period: 100, Memory: 5}},
		{"no quota is the greatest", Values{Quota: -1, Period: 100}, Values{Quota: 3000, Period: 100}, Values{Quota: -1, Period: 100}},
		{"a quota that comes is left for later", Values{}, Values{Quota: 3000, Period: 100}, Values{}},
		{"so is a memory limit", Values{}, Values{Memory: 5}, Values{}},
	} {
		if got := greater(tt.a, tt.b); got.Shares != tt.want.Shares || got.Quota != tt.want.Quota || got.Period != tt.want.Period || got.Memory != tt.want.Memory {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}
