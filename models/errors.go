package models

import "errors"

// Errors of describing and finding models.
var (
	// ErrManifest: a manifest is malformed or contradicts itself.
	ErrManifest = errors.New("models: bad manifest")
	// ErrUnknownModel: no registry entry or file has that name.
	ErrUnknownModel = errors.New("models: unknown model")
	// ErrAbsent: the model is known, but its file is not on this machine.
	ErrAbsent = errors.New("models: model file is not here")
	// ErrHashMismatch: a file's sha256 is not what its manifest pins.
	ErrHashMismatch = errors.New("models: model file differs from its manifest")
	// ErrUnrecognised: a bare .onnx file is neither a YuNet detector nor a
	// 112x112 embedder.
	ErrUnrecognised = errors.New("models: model not recognised")
	// ErrModelName: a name that the registry does not accept.
	ErrModelName = errors.New("models: bad model name")
	// ErrModelExists: the name is taken by another model.
	ErrModelExists = errors.New("models: model name is taken")
	// ErrPull: a download failed or was refused.
	ErrPull = errors.New("models: cannot fetch the model")
)

// Errors of loading and running models.
var (
	// ErrRuntimeMissing: the ONNX Runtime shared library was not found or
	// could not be loaded.
	ErrRuntimeMissing = errors.New("models: ONNX Runtime library not found")
	// ErrNotModel: the file is not an ONNX model that ONNX Runtime can load.
	ErrNotModel = errors.New("models: not a loadable ONNX model")
	// ErrModelShape: the model's inputs or outputs are not what its manifest
	// says.
	ErrModelShape = errors.New("models: model does not fit its manifest")
	// ErrProvider: the execution provider is unknown, or the ONNX Runtime
	// library or the machine lacks it.
	ErrProvider = errors.New("models: execution provider not available")
	// ErrRun: ONNX Runtime failed while running a model.
	ErrRun = errors.New("models: inference failed")
	// ErrClosed: the session or runtime has been closed.
	ErrClosed = errors.New("models: closed")
	// ErrNotFinite: a model's output holds NaN or an infinity.
	ErrNotFinite = errors.New("models: model output is not finite")
)
