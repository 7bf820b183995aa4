//go:build !linux

package target

import "syscall"

func dieWithParent() *syscall.SysProcAttr { return nil }
