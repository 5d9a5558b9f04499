module uploads

go 1.22
