# A local stand-in for nginx:1.28, made of Debian's nginx, for machines that can reach no image registry.
FROM tagtrail-standin:base
STOPSIGNAL SIGQUIT
CMD ["nginx", "-g", "daemon off;"]
