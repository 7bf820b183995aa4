package models

import (
	"net/http"
)

func defaultClient() *http.Client { return &http.Client{} }
