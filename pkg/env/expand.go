package env

import (
	"fmt"
	"strings"
)

// Expand replaces $(NAME) by its value. An unknown name stays as it is, $$
// stands for one $ (behaviour row 1.7-2).
func Expand(s string, values map[string]string) string {
	return expandWith(s, func(name string) string {
		if value, ok := values[name]; ok {
			return value
		}
		return "$(" + name + ")"
	})
}

func expandWith(s string, value func(name string) string) string {
	var out strings.Builder
	// Where no name ends any more, none is looked for: a text of many openings
	// would be searched to its end at each.
	closes := true
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i == len(s)-1 {
			return out.String() + s
		}
		out.WriteString(s[:i])
		s = s[i+1:]
		end := -1
		if s[0] == '(' && closes {
			end = strings.IndexByte(s, ')')
			closes = end > 0
		}
		switch {
		case s[0] == '$':
			out.WriteByte('$')
			s = s[1:]
		case end > 0:
			out.WriteString(value(s[1:end]))
			s = s[end+1:]
		default:
			out.WriteByte('$')
		}
	}
}

// ExpandStrictly needs a value that isn't empty for every name (behaviour row
// 1.7-9): an empty subPath would mount the whole volume.
func ExpandStrictly(s string, values map[string]string) (string, error) {
	var missing []string
	out := expandWith(s, func(name string) string {
		if values[name] == "" {
			missing = append(missing, name)
		}
		return values[name]
	})
	if len(missing) > 0 {
		return "", fmt.Errorf("%q: missing value for %s", s, strings.Join(missing, ", "))
	}
	return out, nil
}
