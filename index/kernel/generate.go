package kernel

//go:generate go -C gen run . -isa avx512 -pkg kernel -out ../avx512_amd64.s -stubs ../avx512_amd64.go
//go:generate go -C gen run . -isa avx2 -pkg kernel -out ../avx2_amd64.s -stubs ../avx2_amd64.go
//go:generate go -C gen run . -isa hadamard -pkg kernel -out ../hadamard_amd64.s -stubs ../hadamard_stages_amd64.go
//go:generate go -C gen run . -isa neon -dir ..
