package env

import (
	"fmt"
	"strings"
)

// maxText is how many bytes the variables of a container may have together, and
// the words of a command. The kernel starts no process with more than 6 MiB of
// both; without a bound a dozen variables, each ten times the one before, would
// take all memory.
const maxText = 8 << 20

var errTooLong = fmt.Errorf("they would have more than %d MiB", maxText>>20)

// Expand replaces $(NAME) by its value in all words. An unknown name stays as it
// is, $$ stands for one $ (behaviour row 1.7-2). It is an error if they become
// longer than any process may be given.
func Expand(words []string, values map[string]string) ([]string, error) {
	var out []string
	left := maxText
	for _, s := range words {
		text, err := expandWith(s, left, func(name string) string {
			if value, ok := values[name]; ok {
				return value
			}
			return "$(" + name + ")"
		})
		if err != nil {
			return nil, fmt.Errorf("put variables in command and args: %w", err)
		}
		left -= len(text)
		out = append(out, text)
	}
	return out, nil
}

// expandWith fails if the text becomes longer than most bytes.
func expandWith(s string, most int, value func(name string) string) (string, error) {
	var out strings.Builder
	// Where no name ends any more, none is looked for: a text of many openings
	// would be searched to its end at each.
	closes := true
	for out.Len() <= most {
		i := strings.IndexByte(s, '$')
		if i < 0 || i == len(s)-1 {
			if len(s) > most-out.Len() {
				break
			}
			return out.String() + s, nil
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
	return "", errTooLong
}

// ExpandStrictly needs a value that isn't empty for every name (behaviour row
// 1.7-9): an empty subPath would mount the whole volume.
func ExpandStrictly(s string, values map[string]string) (string, error) {
	var missing []string
	out, err := expandWith(s, maxText, func(name string) string {
		if values[name] == "" {
			missing = append(missing, name)
		}
		return values[name]
	})
	switch {
	case len(missing) > 0:
		return "", fmt.Errorf("%q: missing value for %s", s, strings.Join(missing, ", "))
	case err != nil:
		return "", fmt.Errorf("%.300q: %w", s, err)
	}
	return out, nil
}
