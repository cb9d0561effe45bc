package node

import "os"

// AppArmor says whether the kernel enforces AppArmor profiles.
func AppArmor() bool {
	enabled, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && len(enabled) > 0 && enabled[0] == 'Y'
}
