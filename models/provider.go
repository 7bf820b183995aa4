package models

import (
	"fmt"
	"strings"

	ort "github.com/yalue/onnxruntime_go"
)

// Provider is what runs a model inside ONNX Runtime.
type Provider string

// The providers that Menshen can ask for. Which of them are there depends on
// the ONNX Runtime library: the one that fetch-runtime.sh installs has the CPU
// alone.
const (
	ProviderCPU      Provider = "cpu"
	ProviderCUDA     Provider = "cuda"
	ProviderTensorRT Provider = "tensorrt" // what it cannot run, CUDA runs
	ProviderOpenVINO Provider = "openvino"
)

// Providers lists all of them.
func Providers() []Provider {
	return []Provider{ProviderCPU, ProviderCUDA, ProviderTensorRT, ProviderOpenVINO}
}

// ProviderNames are the providers in one line, for messages.
func ProviderNames() string {
	var names []string
	for _, p := range Providers() {
		names = append(names, string(p))
	}
	return strings.Join(names, ", ")
}

// onCPU reports whether the threads of a run are the CPU's, and so the number
// of cores bounds what runs at once.
func (p Provider) onCPU() bool { return p == "" || p == ProviderCPU }

// addTo asks for the provider in a session's options.
func (p Provider) addTo(so *ort.SessionOptions, library string) error {
	var err error
	switch p {
	case "", ProviderCPU:
	case ProviderCUDA:
		err = addCUDA(so)
	case ProviderTensorRT:
		if err = addTensorRT(so); err == nil {
			err = addCUDA(so)
		}
	case ProviderOpenVINO:
		err = so.AppendExecutionProviderOpenVINO(nil)
	default:
		return fmt.Errorf("%w: %q is none of %s", ErrProvider, p, ProviderNames())
	}
	if err != nil {
		return fmt.Errorf("%w: the ONNX Runtime library %s cannot run models with %s (%v); name a build that has it with --runtime or $%s, with its provider libraries beside it and the vendor's driver installed, or use the provider cpu",
			ErrProvider, library, p, err, LibraryEnv)
	}
	return nil
}

func addCUDA(so *ort.SessionOptions) error {
	opt, err := ort.NewCUDAProviderOptions()
	if err != nil {
		return err
	}
	defer opt.Destroy()
	return so.AppendExecutionProviderCUDA(opt)
}

func addTensorRT(so *ort.SessionOptions) error {
	opt, err := ort.NewTensorRTProviderOptions()
	if err != nil {
		return err
	}
	defer opt.Destroy()
	return so.AppendExecutionProviderTensorRT(opt)
}
