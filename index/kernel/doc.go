// Package kernel computes the integer dot products that a search is made of:
// int8 codes against int8 codes, and int8 codes against codes packed to 1 or 2
// bits a value.
//
// It promises exact results: a dot product of int8 vectors is an integer, so
// every implementation on every CPU returns the same number, and one test body
// holds them all against the readable reference to the last bit. No
// implementation reads a byte beyond its inputs or writes one beyond dst, and
// none wants its slices aligned. It knows nothing of templates, scores or
// scopes, and it imports the standard library and x/sys/cpu alone.
//
// # Which function
//
//	one probe, many rows                 DotRows, a matter of memory bandwidth
//	4 to 15 probes, many rows            DotTile
//	16 to 64 probes, which want few rows ProbeSet and Reach
//	one probe, rows packed to 1, 2 bits  PreparedProbe and PackedRows
//	one probe, rows that lie apart       AtLeast names them, DotList
//	one probe, a few rows                Dot
//
// # Which implementation
//
// The best one that the CPU runs is chosen once, at the first call; Select
// forces another. A build with the tag purego has the reference alone.
//
//	avx512vnni  AVX2, BMI2, AVX512F, BW, DQ, VL, VNNI; the OS saves the registers
//	avx2        AVX2, likewise
//	neon        arm64 with ASIMDDP (SDOT: Neoverse N1, Apple M1 and later)
//	reference   any; its packed rows cost more than its whole ones, so a
//	            prefilter does not pay on it
//
// # Work per call
//
// A call is not interrupted, so its work is the caller's to bound. Products a
// microsecond on one core that had its rows in the second-level cache:
//
//	                    avx512vnni    avx2  reference
//	DotRows     512-d          430     115          4
//	DotRows     128-d        1,500     400         15
//	DotTile     512-d          740     140          4
//	Reach       512-d          960     140          4
//	Reach       128-d        3,600     450         15
//	PackedRows  512-d   1 bit  540     170          1.2
//	PackedRows  512-d  2 bits  540     170          1.2
//	PackedRows  128-d  2 bits 1,400    400          4.7
//
// So 256 rows of 512 values take about 0.6 microseconds, 11 out of a memory that
// four cores read, and 68 on the reference. Take half of these figures where the
// dimension is not a multiple of 64, and less still for avx2 where it is not one
// of 16. neon has run under an emulator alone, which tells no times.
//
// # Expected and seen
//
// AMD EPYC Zen 5, 4 cores at about 3.8 GHz that others used as well, so the best
// of many short runs. What was expected was noted before it was measured.
//
//	what                                 expected             seen
//	VPDPBUSD on registers                2 a cycle            490 G multiply-adds/s, 2 a cycle
//	DotTile 4x4, 512-d                   0.65-0.75 of that    0.78
//	DotTile 4x4, 128-d                   less: sums across    0.51
//	64x6 in lanes, all sums stored       0.95                 0.95; 0.90 of 128-d
//	16x12 in lanes, likewise             0.9                  0.78: a load for each VPDPBUSD
//	Reach 64x6, 48x8, 32x12, 512-d       0.96                 0.96 of that
//	Reach 16x12, 512-d                   0.8                  0.80
//	Reach 64x6, 128-d                    0.90                 0.94; it compares 6 rows in 30 cycles
//	DotRows 512-d from memory, 1 core    30 GB/s              31; 36 with prefetches
//	  4 cores                            all there is         43; 47
//	1 bit, 512-d, in cache, ns a row     2.0-2.6              1.8
//	  GF2P8AFFINEQB for shift and AND    a quarter less       1.8, the same
//	  bits as byte masks of the probe    2.0-2.6              4.2: KMOVQ
//	  8 bit planes, VPANDQ, VPOPCNTQ     2.6                  2.6, and wants VPOPCNTDQ
//	1 bit, 1 M rows, 4 cores             2.5 ms at most       2.6; 1.7 with prefetches
//	2 bits, 1 M rows, 4 cores            4 ms at most         4.1; 3.1 with prefetches
//	VPMADDWD and VPADDD on registers     -                    107-113 G/s, 1.8 a cycle
//	dot products by them, 512-d          -                    0.54 by rows, 0.68 by tiles
//
// Shift and AND won over GF2P8AFFINEQB at 1 and 2 bits: as fast, and for CPUs
// without GFNI too. Rows are plain row-major in all: interleaving them gains
// nothing over ProbeSet, which interleaves the probes.
package kernel
