package env

import (
	"errors"
	"fmt"
	"strings"
)

// maxText is the size in bytes of the longest texts that names are replaced in,
// and of a container's variables together: more than Linux gives a program,
// whatever its stack. Without a bound a few variables that each name the one
// before twice would take all memory there is.
const maxText = 8 << 20

var errTooLong = errors.New("more than any program can be given (8 MiB)")

// Expand replaces $(NAME) by its value in all words of a command. An unknown name
// stays as it is, $$ stands for one $ (behaviour row 1.7-2).
func Expand(words []string, values map[string]string) ([]string, error) {
	var out []string
	room := maxText
	for _, word := range words {
		text, err := expandWith(word, room, func(name string) string {
			if value, ok := values[name]; ok {
				return value
			}
			return "$(" + name + ")"
		})
		if err != nil {
			return nil, fmt.Errorf("command %.40q: %w", words[0], err)
		}
		room -= len(text)
		out = append(out, text)
	}
	return out, nil
}

// expandWith fails if there is no room for the result, in bytes.
func expandWith(s string, room int, value func(name string) string) (string, error) {
	var out strings.Builder
	// Where no name ends any more, none is looked for: a text of many openings
	// would be searched to its end at each.
	closes := true
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i == len(s)-1 {
			out.WriteString(s)
			if out.Len() > room {
				return "", errTooLong
			}
			return out.String(), nil
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
			text := value(s[1:end])
			if out.Len()+len(text) > room {
				return "", errTooLong
			}
			out.WriteString(text)
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
	out, err := expandWith(s, maxText, func(name string) string {
		if values[name] == "" {
			missing = append(missing, name)
		}
		return values[name]
	})
	if err != nil {
		return "", fmt.Errorf("%.40q: %w", s, err)
	}
	if len(missing) > 0 {
		return "", fmt.Errorf("%q: missing value for %s", s, strings.Join(missing, ", "))
	}
	return out, nil
}
