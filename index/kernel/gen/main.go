// Command gen writes the assembly of package kernel. `go generate
// ./index/kernel` runs it, once for each instruction set; what it writes is
// committed, so that a build needs neither it nor avo.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/mmcloughlin/avo/build"
)

func main() {
	isa := flag.String("isa", "", "what to write: avx2, avx512, neon, or hadamard (for avx2)")
	dir := flag.String("dir", ".", "folder for neon's files, which avo does not write")
	flag.Parse() // avo's own -out, -stubs and -pkg too
	build.ConstraintExpr("!purego")
	switch *isa {
	case "avx512":
		writeAVX512()
	case "avx2":
		writeAVX2()
	case "hadamard":
		writeHadamard()
	case "neon":
		if err := writeNEON(*dir); err != nil {
			fmt.Fprintln(os.Stderr, "gen:", err)
			os.Exit(1)
		}
		return
	default:
		fmt.Fprintf(os.Stderr, "gen: -isa %q: want avx2, avx512, neon or hadamard\n", *isa)
		os.Exit(2)
	}
	build.Generate()
}
