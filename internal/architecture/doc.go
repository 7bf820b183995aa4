// Package architecture holds the rules of who may import and call what, as
// tests: each names its reason, and a breach fails the build. It has no code of
// its own.
package architecture
